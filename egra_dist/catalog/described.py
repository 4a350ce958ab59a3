"""A catalogue as a data set in MLflow: told from its manifest and its files' headers alone."""

import pyarrow as pa
import pyarrow.parquet as pq

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.tracking.datasets import dataset


def as_dataset(catalog: Catalog) -> dict[str, str]:
    """Name, digest, place, columns and counts of a catalogue; nothing of its content is read."""
    columns = {}
    for folder in ("users", "items", f"interactions/{SPLITS[0]}"):
        part = next(iter(sorted((catalog.path / folder).glob("part-*.parquet"))))
        for field in pq.read_schema(part):
            columns[f"{folder.partition('/')[0]}.{field.name}"] = _type_name(field.type)
    for modality in catalog.modalities:
        columns[f"features.{modality}[{catalog.features(modality).dim}]"] = "float"
    path = catalog.path.resolve()
    counts = catalog.manifest.counts
    return dataset(path.name, catalog.digest, str(path), columns, counts, "training")


def _type_name(kind: pa.DataType) -> str:
    """MLflow's word for a column's type."""
    if pa.types.is_integer(kind):
        return "long" if kind.bit_width > 32 else "integer"
    if pa.types.is_floating(kind):
        return "double" if kind.bit_width > 32 else "float"
    if pa.types.is_boolean(kind):
        return "boolean"
    return "datetime" if pa.types.is_temporal(kind) else "string"
