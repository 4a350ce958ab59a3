from dataclasses import dataclass
from typing import Any

import torch

from egra_dist.model.batch import Triplets
from egra_dist.model.tables import keyed
from egra_dist.train.moving import movables
from egra_dist.train.propagation import SampledBatch


@dataclass(frozen=True)
class _Part:
    matrix: tuple[torch.Tensor, ...]
    sizes: list[int]
    nothing: None = None


_Part.__module__ = "egra_dist.tests"


class _Recorded(torch.Tensor):
    streams: Any = None

    def record_stream(self, stream):
        self.streams = stream


def batch(make=torch.arange):
    ids = {"user": make(3), "item": make(2)}
    part: Any = _Part((make(4), make(5)), [4, 5])
    return SampledBatch([Triplets(make(6), make(6), make(6))], ids, part, keyed(ids))


def devices(moved):
    """Of three columns, two tables' ids, a matrix of two arrays, and the features."""
    *tensors, features = movables(moved)
    return [tensor.device.type for tensor in (*tensors, features.values())]


def test_a_batch_moves_with_everything_that_is_in_it():
    before = batch()
    after = before.to(torch.device("meta"), non_blocking=True)
    assert devices(before) == ["cpu"] * 8
    assert devices(after) == ["meta"] * 8
    assert (after.subgraph.sizes, after.subgraph.nothing) == ([4, 5], None)
    assert after.features.keys() == ["user", "item"]


def test_all_tensors_are_recorded_on_the_stream_that_uses_them():
    recorded = []

    def make(size):
        recorded.append(torch.arange(size).as_subclass(_Recorded))
        return recorded[-1]

    one = batch(make)
    stream: Any = "a stream"
    object.__setattr__(one, "features", None)
    one.record_stream(stream)
    assert len(recorded) == 7
    assert all(tensor.streams == stream for tensor in recorded)
