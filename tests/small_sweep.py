"""A search of three trainings that several tests look at: one is good, one is stopped early."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import parse_config
from egra_dist.sweep.record import SweepRecord
from egra_dist.sweep.run import run_sweep
from egra_dist.sweep.space import parse_space

RATE = "train.optimizer.learning_rate"
NUM_EPOCHS = 120
CONFIG = {
    "item_graph": {"source": "none"},
    "train": {
        "alignment": {"ramp_steps": 100},
        "max_epochs": NUM_EPOCHS,
        "patience": NUM_EPOCHS,
        "batch_size": 512,
    },
    "cluster": {"cpus_per_worker": 1},
    "tracking": {"system_metrics": False},
}
SPACE = {
    "max_concurrent": 2,
    "scheduler": {"grace_epochs": 2, "reduction_factor": 3},
    "space": {RATE: {"grid": [0.01, 1e-6, 2e-6]}},
}


class SmallSweep(NamedTuple):
    """Its folder, what is known of it, and the same command once more."""

    folder: Path
    record: SweepRecord
    again: Callable[[], SweepRecord]


def run_small_sweep(folder: Path) -> SmallSweep:
    """Runs it, in an initialised Ray session."""
    settings = SynthSettings(num_items=300, num_users=400, num_interactions=4000)
    catalog = synthesize(settings, folder / "catalog")

    def run() -> SweepRecord:
        return run_sweep(parse_config(CONFIG), catalog, parse_space(SPACE), folder / "out")

    return SmallSweep(folder / "out", run(), run)
