"""The result: for every row its nearest other rows, best first."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.files import write_json

NO_NEIGHBOR = -1


@dataclass(frozen=True)
class KnnGraph:
    """Directed k-nearest-neighbour graph.

    Attributes:
        neighbors: ``int32 [num_rows, k]``, best first, ties by lower index; -1 where there is none.
        scores: ``float32 [num_rows, k]`` similarity, higher is nearer; ``-inf`` where there is no
            neighbour.
        statistics: How it was built and how good it is (JSON-serialisable).
    """

    neighbors: NDArray[np.int32]
    scores: NDArray[np.float32]
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.neighbors)

    @property
    def k(self) -> int:
        """Neighbours per row, at most."""
        return self.neighbors.shape[1]

    def save(self, folder: Path) -> None:
        """Writes ``neighbors.npy``, ``scores.npy`` and ``statistics.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "neighbors.npy", self.neighbors)
        np.save(folder / "scores.npy", self.scores)
        write_json(folder / "statistics.json", self.statistics)

    @classmethod
    def load(cls, folder: Path) -> "KnnGraph":
        """Opens the arrays memory-mapped."""
        return cls(
            neighbors=np.load(folder / "neighbors.npy", mmap_mode="r"),
            scores=np.load(folder / "scores.npy", mmap_mode="r"),
            statistics=json.loads((folder / "statistics.json").read_text()),
        )
