"""What a catalogue that came from elsewhere must satisfy before anything relies on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egra_dist.errors import UserError
from egra_dist.files import inside
from egra_dist.manifest import MANIFEST, Manifest

_PAIR = pa.schema({"user": pa.int32(), "item": pa.int32()})


def check_counts(manifest: Manifest, path: Path, splits: tuple[str, ...]) -> None:
    """Refuses a manifest whose counts are not those of a catalogue.

    Raises:
        UserError: If a count is missing or no number, or a modality's name is no file's name.
    """
    counts = manifest.counts
    per_split = counts.get("num_interactions")
    numbers = {name: counts.get(name) for name in ("num_users", "num_items")}
    known = per_split if isinstance(per_split, dict) else {}
    numbers |= {f"num_interactions.{split}": known.get(split) for split in splits}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise UserError(f"{path / MANIFEST}: counts.{name} is {value!r}, must be a number")
    modalities = counts.get("modalities")
    if not isinstance(modalities, dict):
        raise UserError(f"{path / MANIFEST}: counts.modalities is {modalities!r}, must name them")
    for name in modalities:
        if Path(name).name != name or "\0" in name:
            raise UserError(f"{path / MANIFEST}: modality {name!r} is no name of a file")


def load_array(folder: Path, name: str, num_rows: int, kinds: str, dims: int) -> NDArray[Any]:
    """Opens an array of a catalogue memory-mapped.

    Args:
        folder: Where it stands.
        name: Its file.
        num_rows: How many rows it must have.
        kinds: NumPy's letters of the types that are allowed.
        dims: How many dimensions it must have.

    Raises:
        UserError: If it is not there, not readable, another array, or a link out of the folder.
    """
    path = inside(folder, folder / name)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write the catalogue anew") from None
    except Exception as error:  # an arbitrary header raises arbitrary exceptions
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable .npy file: {reason}") from None
    if not isinstance(array, np.ndarray) or array.ndim != dims or array.dtype.kind not in kinds:
        raise UserError(f"{path}: not an array of a catalogue")
    if len(array) != num_rows:
        raise UserError(f"{path}: {len(array)} rows, the manifest says {num_rows}")
    return array


def check_pairs(schema: pa.Schema, part: Path) -> None:
    """Refuses a part whose columns are not users and items.

    Raises:
        UserError: If a column is missing or of another type.
    """
    for field in _PAIR:
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            raise UserError(f"{part}: must have a column {field.name!r} of {field.type}")


def check_range(indices: pa.Array, below: int, part: Path) -> NDArray[np.int32]:
    """The dense indices of a column.

    Raises:
        UserError: If one is missing, or of nobody.
    """
    if indices.null_count:
        raise UserError(f"{part}: an index is missing")
    values = np.asarray(indices.to_numpy())
    if len(values) and not 0 <= values.min() <= values.max() < below:
        raise UserError(
            f"{part}: indices from {values.min()} to {values.max()}, must be 0 to {below - 1}"
        )
    return values
