"""The model folder: MLflow's pyfunc flavour, from code and data files, servable as it stands."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egra_dist.serve.egra_model.ids import Ids
from egra_dist.tracking.noise import quiet_environment

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

_CODE = Path(__file__).parent / "egra_model"
_REQUIRED = ("mlflow", "faiss-cpu", "numpy", "pandas", "pyarrow")
DATA = Path("artifacts") / "data"
"""Where, in a model folder, its data files are."""


def save_model(data: Path, folder: Path) -> None:
    """Writes the model folder; the data files move there.

    Args:
        data: What :func:`egra_dist.serve.data.write_data` wrote.
        folder: Must not exist.
    """
    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_"):
            os.environ.setdefault(name, value)
    from mlflow.pyfunc import save_model as save

    users, items = Ids.open(data / "users"), Ids.open(data / "items")
    with _served_code_importable():
        save(
            str(folder),
            python_model=str(_CODE / "model.py"),
            code_paths=[str(_CODE)],
            artifacts={"data": str(data)},
            signature=_signature(items),
            input_example=_example(users, items),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIRED],
        )
    shutil.rmtree(data)
    _forget_paths(folder)
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


def _forget_paths(folder: Path) -> None:
    """Where the files were on this machine is of no use elsewhere."""
    from mlflow.models import Model

    described = Model.load(str(folder))
    flavor = described.flavors["python_function"]
    flavor["model_code_path"] = "model.py"
    flavor["artifacts"]["data"]["uri"] = str(DATA)
    described.save(str(folder / "MLmodel"))


def _signature(items: Ids) -> "ModelSignature":
    """Every column may be left out, and is checked by the model itself, which says what is wrong.

    MLflow's own check refuses a list that is missing in one row only, and turns integers that are
    missing in one row into an error that names neither row nor column.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    from egra_dist.serve.egra_model.requests import COLUMNS, DEFAULT_K

    kind = DataType.long if items.are_integers else DataType.string
    return ModelSignature(
        Schema([ColSpec(AnyType(), name, required=False) for name in COLUMNS]),
        Schema(
            [
                ColSpec(Array(kind), "items"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.string, "source"),
                ColSpec(Array(AnyType()), "ignored"),
            ]
        ),
        ParamSchema([ParamSpec("k", DataType.long, DEFAULT_K)]),
    )


def _example(users: Ids, items: Ids) -> tuple[Any, dict[str, Any]]:
    """A user of the catalogue, and somebody who chose the first two items."""
    import pandas as pd

    chosen = items.of_rows(np.arange(min(2, len(items))))
    known = pd.Series([*users.of_rows([0]), None], dtype=object)
    return pd.DataFrame({"user_id": known, "items": [[], chosen]}), {"k": 5}


@contextmanager
def _served_code_importable() -> Iterator[None]:
    """As in the model's folder, the package stands under its own name."""
    sys.path.insert(0, str(_CODE.parent))
    try:
        yield
    finally:
        sys.path.remove(str(_CODE.parent))
