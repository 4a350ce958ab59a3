"""The whole step: contents in, features and ids out, in a form that ``ingest events`` takes."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.artifact import Artifact, build
from egra_dist.catalog.writer import check_replaceable, write_npy
from egra_dist.errors import UserError
from egra_dist.featurize.contents import Contents, Kind, read_contents
from egra_dist.featurize.encode import Placement, encode_ranges
from egra_dist.featurize.encoders import choose_encoder
from egra_dist.featurize.ranges import FEATURES, Range, RangeStore, plan_ranges, write_places
from egra_dist.manifest import digest_of
from egra_dist.tracking.progress import StageProgress

KIND = "features"
IDS = "ids.parquet"
_NUM_NAMED = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeaturizeSettings:
    """What is encoded, and by what.

    Attributes:
        kind: Texts or images.
        template: A column of texts or of paths, or a text with columns in braces.
        encoder: See :func:`egra_dist.featurize.encoders.choose_encoder`.
        weights: A file of weights, for images.
        id_column: Column of item ids, in a table.
        folder: Where relative paths of images start.
        dtype: Of the features.
        rows_per_range: Rows that are kept as one; what is lost at most when it is interrupted.
    """

    kind: Kind
    template: str
    encoder: str
    weights: Path | None = None
    id_column: str = "item_id"
    folder: Path = field(default_factory=Path.cwd)
    dtype: Literal["float16", "float32"] = "float16"
    rows_per_range: int = 1024


def featurize(
    source: Path, out: Path, settings: FeaturizeSettings, placement: Placement | None = None
) -> Artifact:
    """Encodes the texts or images of all items.

    Args:
        source: A catalogue or a table.
        out: Folder that takes ``features.npy`` ``[num_items, dim]``, zero where missing, and
            ``ids.parquet``. Ranges of rows that an earlier or an interrupted run encoded there are
            not encoded again.
        settings: What is encoded, and by what.
        placement: Where encoders run.

    Raises:
        UserError: If an input or the encoder is not what it should be, or no item has a vector.
    """
    check_replaceable(out, KIND, KIND)
    contents = read_contents(source, settings.kind, settings.template, settings.id_column)
    spec = choose_encoder(settings.kind, settings.encoder, settings.weights)
    recipe = {"kind": settings.kind, "dtype": settings.dtype, **spec.identity()}
    ranges = plan_ranges(
        contents, digest_of(KIND, recipe, {}), settings.folder, settings.rows_per_range
    )
    inputs = {"contents": digest_of("contents", {"ranges": [part.digest for part in ranges]}, {})}
    inputs["ids"] = digest_of("ids", {contents.id_column: contents.ids.to_pylist()}, {})

    def make(folder: Path) -> dict[str, Any]:
        store = RangeStore(folder / "ranges")
        store.adopt(out, ranges)
        lacking = [part for part in ranges if part not in store]
        num_encoded = sum(map(len, lacking))
        _log.info("%s: %d of %d items are still to be encoded", out, num_encoded, len(contents))
        with StageProgress("featurize", len(contents), unit="items") as progress:
            num_done = len(contents) - num_encoded
            for part, vectors in encode_ranges(
                contents, lacking, spec, settings.folder, placement or Placement()
            ):
                store.write(part, _as_type(vectors, settings.dtype))
                num_done += len(part)
                progress.update(num_done)
        return {**_assemble(contents, ranges, store, folder), "num_encoded": num_encoded}

    artifact = build(out, KIND, recipe, inputs, make, resumable=True)
    _warn_of_missing(out, contents, artifact.manifest.counts)
    return artifact


def _as_type(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        raise UserError(f"--dtype {dtype}: a feature is {np.abs(values).max():g}; take float32")
    return cast


def _assemble(
    contents: Contents, ranges: list[Range], store: RangeStore, folder: Path
) -> dict[str, Any]:
    if not store.has_vectors(ranges):
        what = "text" if contents.kind == "text" else "readable image file"
        raise UserError(f"none of the {len(contents):,} items has a {what}")
    num_missing = 0

    def blocks() -> Iterator[NDArray[Any]]:
        nonlocal num_missing
        for block in store.blocks(ranges):
            num_missing += int(np.count_nonzero(~block.any(axis=1)))
            yield block

    dim, dtype = write_npy(folder / FEATURES, blocks(), len(contents))
    pq.write_table(pa.table({contents.id_column: contents.ids}), folder / IDS)
    write_places(folder, ranges)
    store.remove()
    return {"num_items": len(contents), "dim": dim, "dtype": str(dtype), "num_missing": num_missing}


def _warn_of_missing(out: Path, contents: Contents, counts: dict[str, Any]) -> None:
    if not counts["num_missing"]:
        return
    values = np.load(out / FEATURES, mmap_mode="r")
    named: list[str] = []
    for start in range(0, len(values), 1 << 14):
        missing = np.flatnonzero(~values[start : start + (1 << 14)].any(axis=1)) + start
        named += [_name(contents, int(row)) for row in missing[: _NUM_NAMED - len(named)]]
        if len(named) == _NUM_NAMED:
            break
    _log.warning(
        "%s: %d of %d items have no %s and are marked as missing, the first of them %s",
        out, counts["num_missing"], len(contents),
        "text" if contents.kind == "text" else "readable image", ", ".join(named),
    )  # fmt: skip


def _name(contents: Contents, row: int) -> str:
    value = contents.values[row].as_py()
    name = repr(contents.ids[row].as_py())
    return name if value is None or contents.kind == "text" else f"{name} ({value})"
