"""Valid inputs of every kind that is fuzzed: a catalogue, and a checkpoint."""

import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.train.commit import Commit, Entry, Identity, TrainingState


@cache
def kept() -> Path:
    """Valid examples, made once for a process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
    synthesize(SynthSettings(num_items=60, num_users=20, num_interactions=100), folder / "catalog")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(tensors(), checkpoint_id=folder / "checkpoints" / "step-1-of-1")
    entry = Entry("step-1-of-1", TrainingState(epoch=1, step=1))
    identity = Identity({"catalog": "a"}, {"table": [4, 2]}, None)
    Commit(identity).added(entry, True, 2).write(folder / "checkpoints")
    return folder


def tensors() -> dict[str, Any]:
    return {"table": torch.arange(8.0).reshape(4, 2), "state": {"step": torch.tensor(3.0)}}
