"""What a run leaves as artifacts in MLflow: text, JSON, tables, figures, copies of files."""

import io
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egra_dist.files import write_json
from egra_dist.redaction import redact, redacted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLES = "mlflow.loggedArtifacts"


class ArtifactLog(ABC):
    """Takes artifacts; ``run_id`` says of which run, the parent when None."""

    @abstractmethod
    def _put(self, path: str, write: Callable[[Path], object], run_id: str | None) -> None:
        """Adds an artifact that ``write`` writes to the file it is given."""

    @abstractmethod
    def set_tags(self, tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Sets tags of a run."""

    def log_dict(self, content: Any, path: str, run_id: str | None = None) -> None:
        """Records JSON as an artifact, e.g. under ``"plan/sharding.json"``."""
        self._put(path, lambda file: write_json(file, redacted(content)), run_id)

    def log_text(self, text: str, path: str, run_id: str | None = None) -> None:
        """Records text as an artifact."""
        self._put(path, lambda file: file.write_text(redact(text)), run_id)

    def log_artifact(self, file: Path, folder: str = "", run_id: str | None = None) -> None:
        """Records a copy of a file as an artifact; meant for small files."""
        self._put(f"{folder}/{file.name}", lambda copy: shutil.copy(file, copy), run_id)

    def log_figure(
        self, figure: "Figure", path: str, run_ids: Sequence[str | None] = (None,)
    ) -> None:
        """Records a figure with one or several runs; the path's suffix says in which format."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format=Path(path).suffix[1:])
        for run_id in run_ids:
            self._put(path, lambda file: file.write_bytes(drawn.getvalue()), run_id)

    def log_table(
        self, columns: Mapping[str, Sequence[Any]], path: str, run_id: str | None = None
    ) -> None:
        """Records a table as MLflow's page shows it; one table per run."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self.log_dict({"columns": list(columns), "data": rows}, path, run_id)
        self.set_tags({_TABLES: json.dumps([{"path": path, "type": "table"}])}, run_id)
