"""Text encoders of sentence-transformers."""

from dataclasses import dataclass
from pathlib import Path

from egra_dist.catalog.files import content_digest
from egra_dist.errors import UserError
from egra_dist.featurize.encoders import Encode, best_device, loading, require

_PACKAGE = "sentence_transformers"


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model.

    Attributes:
        name: A folder, or a name on the Hugging Face hub.
    """

    name: str

    def identity(self) -> dict[str, str]:
        """The hub name, or the digest of the folder's files."""
        require(_PACKAGE, self.name)
        folder = Path(self.name)
        if folder.is_dir():
            if not any((folder / name).exists() for name in ("modules.json", "config.json")):
                raise UserError(f"--encoder {self.name}: holds no model (no modules.json)")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return {"encoder": "sentence-transformers", "weights": content_digest(files)}
        if folder.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") > 1:
            raise UserError(f"--encoder {self.name}: no such folder")
        return {"encoder": "sentence-transformers", "name": self.name}

    def load(self) -> Encode:
        """Loads the model, from the hub where it is not a folder."""
        package = require(_PACKAGE, self.name)
        with loading(f"--encoder {self.name}"):
            model = package.SentenceTransformer(self.name, device=best_device())
        # Its own batches of 32 texts of like length waste the least on padding; a GPU wants more.
        batch_size = 32 if model.device.type == "cpu" else 256
        return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)
