"""Recommendations from exported files, which are memory-mapped: vectors, ids, what users saw."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from .features import FeatureSpace
from .ids import Ids, RawId
from .ranking import NO_ITEM, Best, Ranker, exact_dot

Source = Literal["user", "items", "popularity"]
HISTORY = "history.json"
"""How items of a query are weighed; absent where all weigh the same."""


@dataclass(frozen=True)
class Query:
    """For whom items are wanted.

    Attributes:
        user: A user's id.
        items: What they have chosen, the latest last: in place of a user that is not known, and
            left out.
        new_items: Features by modality of items that the model does not know, by their ids.
    """

    user: RawId | None = None
    items: tuple[RawId, ...] = ()
    new_items: Mapping[RawId, Mapping[str, Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Recommended items, best first.

    Attributes:
        items: Their ids.
        scores: Inner products with the vector that :attr:`source` names; training interactions
            for ``"popularity"``.
        source: Whether they follow from the user's vector, from the mean of the vectors of the
            items given (the later ones weighing more by :attr:`Recommender.decay`), or are the most
            popular.
        ignored: Ids of the query that played no part: items that are not known, and new items
            where there was no vector to rank them by.
    """

    items: list[RawId]
    scores: list[float]
    source: Source
    ignored: list[RawId]


@dataclass(frozen=True)
class Recommender:
    """Answers queries.

    Attributes:
        users: Ids of the users.
        items: Ids of the items.
        user_vectors: ``float32 [num_users, dim]``.
        ranker: The items' vectors and their index.
        seen_starts: ``int64 [num_users + 1]``: where in :attr:`seen_items` a user's begin.
        seen_items: What each user is never recommended.
        counts: ``int64 [num_items]``: training interactions.
        features: Those of the items.
        decay: What an item of a query weighs against the one that was chosen next.
    """

    users: Ids
    items: Ids
    user_vectors: NDArray[np.float32]
    ranker: Ranker
    seen_starts: NDArray[np.int64]
    seen_items: NDArray[np.int32]
    counts: NDArray[np.int64]
    features: FeatureSpace
    decay: float = 1.0

    @classmethod
    def open(cls, folder: Path) -> "Recommender":
        """Opens the files of an exported model."""
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("user_vectors", "item_vectors", "seen_starts", "seen_items", "counts")
        }
        index = faiss.read_index(str(folder / "index.faiss"))
        return cls(
            users=Ids.open(folder / "users"),
            items=Ids.open(folder / "items"),
            user_vectors=arrays["user_vectors"],
            ranker=Ranker(arrays["item_vectors"], index),
            seen_starts=arrays["seen_starts"],
            seen_items=arrays["seen_items"],
            counts=arrays["counts"],
            features=FeatureSpace.open(folder / "features", arrays["counts"] > 0),
            decay=_read_decay(folder / HISTORY),
        )

    def best_of_users(self, users: Iterable[int], k: int) -> Best:
        """The best unseen items of users, by row."""
        rows = np.fromiter(users, np.int64)
        return self.ranker.best(self.user_vectors[rows], [self.seen_by(row) for row in rows], k)

    def seen_by(self, user: int) -> NDArray[np.int32]:
        """The items that a user, by row, is never recommended."""
        return self.seen_items[self.seen_starts[user] : self.seen_starts[user + 1]]

    def answer(self, query: Query, k: int) -> Answer:
        """Recommends ``k`` items, or fewer where there are no more.

        Raises:
            RequestError: If the features of a new item cannot be used.
        """
        known = self.items.find(query.items)
        rows, new = known[known >= 0], self._new_vectors(query)
        history = [
            self.ranker.vectors[row] if row >= 0 else new[name]
            for name, row in zip(query.items, known, strict=True)
            if row >= 0 or name in new
        ]
        vector, source, left_out = self._vector(query, rows, history)
        unknown = [
            name
            for name, row in zip(query.items, known, strict=True)
            if row < 0 and name not in new
        ]
        if vector is None:
            unranked = [name for name in new if name not in query.items]
            return self._most_popular(left_out, k, [*unknown, *unranked])
        best = self.ranker.best(vector[None], [left_out], k)
        found = best.items[0] != NO_ITEM
        scored = list(
            zip(self.items.of_rows(best.items[0][found]), best.scores[0][found], strict=True)
        )
        for name, new_vector in new.items():
            if name not in query.items:
                scored.append((name, exact_dot(vector, new_vector)))
        scored.sort(key=lambda pair: -pair[1])  # stable: equal scores stay as they stand
        names, scores = zip(*scored[:k], strict=True) if scored else ((), ())
        return Answer(list(names), list(map(float, scores)), source, unknown)

    def _vector(
        self,
        query: Query,
        items: NDArray[np.int64],
        history: list[NDArray[np.float32]],
    ) -> tuple[NDArray[np.float32] | None, Source, NDArray[np.int64]]:
        """What to rank by, where it comes from, and what to leave out."""
        user = -1 if query.user is None else int(self.users.find([query.user])[0])
        if user >= 0:
            return self.user_vectors[user], "user", np.append(self.seen_by(user), items)
        if not history:
            return None, "popularity", items
        mean = self.weights(len(history)) @ np.array(history, np.float64)
        return mean.astype(np.float32), "items", items

    def weights(self, count: int) -> NDArray[np.float64]:
        """What items weigh in the mean of so many, the latest last; their sum is 1."""
        weights = self.decay ** np.arange(count - 1, -1, -1.0)
        return weights / weights.sum()

    def _new_vectors(self, query: Query) -> dict[RawId, NDArray[np.float32]]:
        vectors = self.ranker.vectors
        return {
            name: self.features.vector(given, vectors) for name, given in query.new_items.items()
        }

    def _most_popular(self, left_out: NDArray[np.int64], k: int, ignored: list[RawId]) -> Answer:
        first = self._by_popularity[: k + len(left_out)]
        rows = first[~np.isin(first, left_out)][:k]
        scores = self.counts[rows].astype(float).tolist()
        return Answer(self.items.of_rows(rows), scores, "popularity", ignored)

    @cached_property
    def _by_popularity(self) -> NDArray[np.int64]:
        return np.argsort(-self.counts, kind="stable")


def _read_decay(path: Path) -> float:
    return float(json.loads(path.read_text())["decay"]) if path.exists() else 1.0
