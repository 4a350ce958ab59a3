"""Matrices that all ranks write together: a file in a folder that they share."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray


def create_shared(
    path: Path, num_rows: int, dim: int, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Creates a matrix ``[num_rows, dim]`` on disk and opens it on every rank; a collective call.

    Args:
        path: The ``.npy`` file; its folder is created.
        num_rows: Rows.
        dim: Columns.
        dtype: Type of its values.
    """
    if dist.get_rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        open_memmap(path, mode="w+", dtype=dtype, shape=(num_rows, dim)).flush()
    dist.barrier()
    if num_rows == 0:
        return np.empty((0, dim), dtype=dtype)
    return open_memmap(path, mode="r+")


def publish(matrix: NDArray[np.float32]) -> None:
    """Lets other machines see what was written, once they have passed a barrier.

    The processes of one machine see it as it is.
    """
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
    if isinstance(matrix, np.memmap) and num_local < dist.get_world_size():
        matrix.flush()
