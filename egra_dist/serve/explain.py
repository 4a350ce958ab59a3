"""Why an item is recommended: which items of a history it is near to, and what carried its score.

A score is the inner product of a vector ``q`` (of a user, or the mean of the vectors of the items
given) and the item's. Where the training has left what each modality adds to the item's vector,
``q`` times that is the modality's part of the score, and behaviour's part is the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egra_dist.errors import UserError
from egra_dist.serve.data import TITLES

if TYPE_CHECKING:
    from egra_dist.serve.egra_model.recommender import Query, Recommender

NUM_NEIGHBORS = 3


@dataclass(frozen=True)
class Neighbor:
    """An item of the history.

    Attributes:
        item: Its id.
        title: What it is called, where that is known.
        cosine: Of its vector and that of the recommended item.
        share: What it adds to the score, where the score is that of a mean of items; else None.
        features: Cosine of the two items' features, by modality that both have.
        linked: Their similarity in the item graph, where one is a neighbour of the other there.
    """

    item: str | int
    title: str | None
    cosine: float
    share: float | None
    features: dict[str, float]
    linked: float | None


@dataclass(frozen=True)
class Explanation:
    """A recommended item.

    Attributes:
        item: Its id.
        title: What it is called, where that is known.
        score: As the model serves it.
        parts: What behaviour and each modality add to the score; empty where that is not kept.
        neighbors: The items of the history that are nearest to it, the nearest first.
    """

    item: str | int
    title: str | None
    score: float
    parts: dict[str, float]
    neighbors: list[Neighbor]


@dataclass(frozen=True)
class Explained:
    """A whole answer.

    Attributes:
        source: Where the scores come from, see :class:`Answer`.
        ignored: Ids of the query that are not known.
        items: What is recommended, best first.
    """

    source: str
    ignored: list[str | int]
    items: list[Explanation]


@dataclass(frozen=True)
class Explainer:
    """Explains what a recommender answers.

    Attributes:
        recommender: Answers.
        data: Folder of its files.
        shares: Folder of ``<modality>.npy``, ``[num_items, dim]``: what modalities add.
        item_graph: Folder of the kNN graph that was merged; it may not be there.
    """

    recommender: "Recommender"
    data: Path
    shares: Path
    item_graph: Path

    def explain(self, query: "Query", k: int) -> Explained:
        """Recommends items and says why.

        Args:
            query: A known user, or items.
            k: Items that are recommended.
        """
        answer = self.recommender.answer(query, k)
        items = self.recommender.items.find(answer.items)
        vector, history, weights = self._basis(query)
        explained = [
            Explanation(
                item=name,
                title=self.title(row),
                score=score,
                parts={} if vector is None else self._parts(vector, int(row), score),
                neighbors=self._neighbors(int(row), history, weights),
            )
            for name, row, score in zip(answer.items, items, answer.scores, strict=True)
        ]
        return Explained(answer.source, answer.ignored, explained)

    def title(self, item: int) -> str | None:
        """What an item, by row, is called."""
        return None if self._titles is None else self._titles[int(item)].as_py()

    def _basis(
        self, query: "Query"
    ) -> tuple[NDArray[np.floating] | None, NDArray[np.integer], NDArray[np.float64] | None]:
        """What is ranked by, whose neighbours count, and what they weigh if it is their mean."""
        recommender = self.recommender
        given = recommender.items.find(query.items)
        given = given[given >= 0]
        if query.user is not None and (user := int(recommender.users.find([query.user])[0])) >= 0:
            history = np.union1d(recommender.seen_by(user), given)
            return recommender.user_vectors[user], history, None
        if len(given) == 0:
            return None, given, None
        weights = recommender.weights(len(given))
        return weights @ recommender.ranker.vectors[given].astype(np.float64), given, weights

    def _parts(self, vector: NDArray[Any], item: int, score: float) -> dict[str, float]:
        modalities = {
            "behavior (modality)" if name == "behavior" else name: float(
                vector.astype(np.float64) @ share[item].astype(np.float64)
            )
            for name, share in self._shares.items()
        }
        return {"behavior": score - sum(modalities.values()), **modalities} if modalities else {}

    def _neighbors(
        self, item: int, history: NDArray[np.integer], weights: NDArray[np.float64] | None
    ) -> list[Neighbor]:
        if len(history) == 0:
            return []
        vectors = self.recommender.ranker.vectors
        own, others = (vectors[rows].astype(np.float64) for rows in (item, history))
        products = others @ own
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(own)
        cosines = products / np.where(lengths > 0, lengths, 1)
        shares = None if weights is None else weights * products
        nearest = np.argsort(-(cosines if shares is None else shares), kind="stable")
        return [
            Neighbor(
                item=self.recommender.items.of_rows([history[place]])[0],
                title=self.title(history[place]),
                cosine=float(cosines[place]),
                share=None if shares is None else float(shares[place]),
                features=self._feature_cosines(item, int(history[place])),
                linked=self._link(item, int(history[place])),
            )
            for place in nearest[:NUM_NEIGHBORS]
        ]

    def _feature_cosines(self, left: int, right: int) -> dict[str, float]:
        pairs = {
            name: (known[left].astype(np.float32), known[right].astype(np.float32))
            for name, known in self.recommender.features.features.items()
        }
        return {name: float(a @ b) for name, (a, b) in pairs.items() if a.any() and b.any()}

    def _link(self, left: int, right: int) -> float | None:
        if self._graph is None:
            return None
        neighbors, scores = self._graph
        for one, other in ((left, right), (right, left)):
            places = np.flatnonzero(neighbors[one] == other)
            if len(places):
                return float(scores[one, places[0]])
        return None

    @cached_property
    def _shares(self) -> Mapping[str, NDArray[np.float16]]:
        return {
            file.stem: np.load(file, mmap_mode="r") for file in sorted(self.shares.glob("*.npy"))
        }

    @cached_property
    def _graph(self) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        files = [self.item_graph / f"{name}.npy" for name in ("neighbors", "scores")]
        if not all(file.exists() for file in files):
            return None
        neighbors, scores = (np.load(file, mmap_mode="r") for file in files)
        return neighbors, scores

    @cached_property
    def _titles(self) -> pa.ChunkedArray | None:
        path = self.data / TITLES
        if not path.exists():
            return None
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)


def _parsed(option: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r}: an id {error}") from None


def parse_query(recommender: "Recommender", user: str | None, items: list[str]) -> "Query":
    """The query that a user of the command line means.

    Raises:
        UserError: If an id cannot be one, or none of the items is known.
    """
    from egra_dist.serve.egra_model.recommender import Query

    chosen = [_parsed("--items", item, recommender.items.parse) for item in items]
    query = Query(
        None if user is None else _parsed("--user", user, recommender.users.parse),
        tuple(dict.fromkeys(chosen)),
    )
    if user is not None and recommender.users.find([query.user or user])[0] < 0 and not items:
        raise UserError(f"--user {user}: no such user; give --items that they chose")
    return query
