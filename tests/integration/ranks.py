"""Runs a function on several gloo ranks, each a process of its own."""

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from egra_dist.tracking.noise import setup_logging

# Ranks are forked from a process that has imported what takes seconds, and holds no state else.
mp.set_forkserver_preload(["egra_dist.train.worker", "torchrec"])


def run_on_ranks(function: Callable[..., Any], num_ranks: int, *arguments: Any) -> list[Any]:
    """Returns what ``function(*arguments)`` returned on each rank."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _run,
            (num_ranks, Path(folder), function, arguments),
            nprocs=num_ranks,
            start_method="forkserver",
        )
        return [pickle.loads((Path(folder) / str(r)).read_bytes()) for r in range(num_ranks)]


def _run(rank: int, num_ranks: int, folder: Path, function: Callable, arguments: tuple) -> None:
    os.environ.update(
        GLOO_SOCKET_IFNAME="lo",
        RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(num_ranks),
    )
    torch.set_num_threads(1)
    setup_logging(0)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_ranks
    )
    result = function(*arguments)
    (folder / str(rank)).write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def dense_gradient(rows: Any) -> Any:
    """What a lookup has left with a table's own rows, ``[num_own_rows, dim]``."""
    dense = torch.zeros(rows.shape)
    for group in rows.take_gradients():
        assert not dense[group.rows].any(), "a row that is in two groups"
        dense[group.rows] += group.values
    return dense.numpy()
