"""Encodes ranges of rows on a Ray cluster: actors of Ray Data that each hold one encoder."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from egra_dist.cluster.resources import worker_resources
from egra_dist.cluster.session import ray_session
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.featurize.contents import Contents, Kind
from egra_dist.featurize.encoders import Encode, EncoderSpec
from egra_dist.featurize.image import read_images
from egra_dist.featurize.ranges import Range


@dataclass(frozen=True)
class Placement:
    """Where encoders run.

    Attributes:
        address: A Ray cluster; a local one when None.
        concurrency: Number of encoders; when None one per GPU (or as many as share it), else one
            per four CPUs.
        gpus: GPUs of each, also a part of one; 1 when None and there is one.
        batch_size: Items that an encoder gets at once; when None 256 on a GPU and 32 on a CPU.
    """

    address: str | None = None
    concurrency: int | None = None
    gpus: float | None = None
    batch_size: int | None = None


class BatchEncoder:
    """Encodes batches; Ray Data makes actors of it.

    The encoder is loaded with the first batch. A user's mistake comes back as a value, ``error``:
    an exception would reach the driver as a dead actor or inside several others.

    Args:
        spec: The encoder.
        kind: What it encodes.
        folder: Where relative paths of images start.
    """

    def __init__(self, spec: EncoderSpec, kind: Kind, folder: Path) -> None:
        self._spec = spec
        self._kind = kind
        self._folder = folder
        self._encode: Encode | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Replaces ``content`` by ``vector`` (null for an unreadable image) and ``error``."""
        vectors: list[Any] = [None] * batch.num_rows
        message = None
        try:
            vectors = self._vectors(batch["content"].to_pylist())
        except UserError as error:
            message = str(error)
        column = pa.array(vectors, pa.large_list(pa.float32()))
        errors = pa.array([message] * batch.num_rows, pa.string())
        batch = batch.drop_columns("content")
        return batch.append_column("vector", column).append_column("error", errors)

    def _vectors(self, contents: list[str]) -> list[NDArray[np.float32] | None]:
        inputs: list[Any] = list(contents)
        if self._kind == "image":
            inputs = read_images([self._folder / path for path in contents])
        here = [row for row, value in enumerate(inputs) if value is not None]
        vectors: list[NDArray[np.float32] | None] = [None] * len(inputs)
        if here:
            found = self._encode_checked([inputs[row] for row in here])
            for row, vector in zip(here, found, strict=True):
                vectors[row] = vector
        return vectors

    def _encode_checked(self, inputs: list[Any]) -> NDArray[np.float32]:
        self._encode = self._encode or self._spec.load()
        vectors = np.asarray(self._encode(inputs), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(inputs) or not vectors.shape[1]:
            raise UserError(
                f"the encoder gave shape {list(vectors.shape)} for {len(inputs)} inputs, "
                f"must give [{len(inputs)}, dim]"
            )
        if not np.isfinite(vectors).all():
            raise UserError("the encoder gave values that are not finite")
        return vectors


def encode_ranges(
    contents: Contents,
    ranges: Sequence[Range],
    spec: EncoderSpec,
    folder: Path,
    placement: Placement,
) -> Iterator[tuple[Range, NDArray[np.float32]]]:
    """Encodes ranges, each yielded when it is whole, in the order in which they become so.

    Args:
        contents: The texts or paths of all items.
        ranges: What of them is encoded.
        spec: By what.
        folder: Where relative paths of images start.
        placement: Where encoders run.

    Yields:
        The range and its vectors ``float32 [num_rows, dim]``, zero where missing; dim is 0 where
        all are.

    Raises:
        UserError: If the encoder cannot be loaded or gives no finite vectors; if the cluster cannot
            be reached or cannot hold the encoders.
    """
    blocks = {number: _block(contents, part, number) for number, part in enumerate(ranges)}
    for number, part in enumerate(ranges):
        if not blocks[number].num_rows:
            del blocks[number]
            yield part, np.zeros((len(part), 0), np.float32)
    if not blocks:
        return
    open_ranges = {n: _OpenRange(ranges[n], block.num_rows) for n, block in blocks.items()}
    constructor = (spec, contents.kind, folder)
    for batch in _run(list(blocks.values()), constructor, placement):
        for number in np.unique(batch["range"].to_numpy()):
            if open_ranges[number].add(batch.filter(pc.equal(batch["range"], number))):
                whole = open_ranges.pop(number)
                yield whole.part, whole.vectors
    assert not open_ranges, "every row that goes in comes out"


class _OpenRange:
    """Collects the vectors of a range until none is awaited."""

    def __init__(self, part: Range, num_awaited: int) -> None:
        self.part = part
        self.vectors: NDArray[np.float32] = np.zeros((len(part), 0), np.float32)
        self._num_awaited = num_awaited

    def add(self, batch: pa.Table) -> bool:
        """Takes encoded rows in; returns whether these were the last."""
        self._num_awaited -= batch.num_rows
        batch = batch.filter(batch["vector"].is_valid())
        if batch.num_rows:
            vectors = batch["vector"].combine_chunks().flatten().to_numpy()
            vectors = vectors.reshape(batch.num_rows, -1)
            if not self.vectors.shape[1]:
                self.vectors = np.zeros((len(self.part), vectors.shape[1]), np.float32)
            self.vectors[batch["row"].to_numpy()] = vectors
        return not self._num_awaited


def _block(contents: Contents, part: Range, number: int) -> pa.Table:
    """The rows of a range that have a content."""
    values = contents.values[part.start : part.stop]
    rows = np.arange(len(part), dtype=np.int32)
    block = pa.table({"range": np.full(len(part), number), "row": rows, "content": values})
    return block.filter(values.is_valid())


def _run(
    blocks: list[pa.Table], constructor: tuple[Any, ...], placement: Placement
) -> Iterator[pa.Table]:
    # Ray's core warns of each actor of a pool that its arguments could be lost; they are kept here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    cluster = ClusterSettings(address=placement.address, num_workers=placement.concurrency or 1)
    with ray_session(cluster):
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        num_encoders, resources = _share(placement)
        dataset = ray.data.from_arrow(blocks).map_batches(
            BatchEncoder,
            fn_constructor_args=constructor,
            batch_size=placement.batch_size or (256 if resources.gpus else 32),
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=num_encoders),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
        )
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            if len(errors := batch["error"].drop_null()):
                raise UserError(errors[0].as_py())
            yield batch


def _share(placement: Placement) -> tuple[int, Any]:
    """Number of encoders and what each reserves."""
    import ray

    available = ray.cluster_resources()
    num_gpus = available.get("GPU", 0)
    gpus = min(1, num_gpus) if placement.gpus is None else placement.gpus
    fitting = num_gpus / gpus if gpus else available.get("CPU", 1) / 4
    num_encoders = placement.concurrency or max(1, int(fitting))
    settings = ClusterSettings(num_workers=num_encoders, gpus_per_worker=gpus)
    return num_encoders, worker_resources(settings)
