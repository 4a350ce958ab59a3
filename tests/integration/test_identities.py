"""METHOD's identities that need whole models."""

from dataclasses import replace

import numpy as np
from ranks import run_on_ranks
from test_training_ranks import make_task, series, train_on_rank

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import ModelSettings


def test_egra_without_its_two_parts_is_mgcn_bit_for_bit(tmp_path):
    catalog = synthesize(
        SynthSettings(num_items=200, num_users=300, num_interactions=3000), tmp_path / "catalog"
    )
    egra = make_task(
        catalog,
        tmp_path,
        "train.alignment.focus=uniform",
        "train.alignment.ramp=constant",
        "train.max_steps=12",
        "train.batch_size=512",
    )
    egra = replace(egra, graphs=replace(egra.graphs, behavior=egra.graphs.plain))
    settings = egra.settings.model_copy(update={"model": ModelSettings(name="mgcn")})
    mgcn = replace(egra, settings=settings, folder=tmp_path / "mgcn")
    (first, first_vectors), (second, second_vectors) = (
        run_on_ranks(train_on_rank, 1, task)[0] for task in (egra, mgcn)
    )
    for name in ("train/loss_total", "train/loss_user_alignment", "valid/recall_at_20"):
        assert np.array_equal(series(first, name), series(second, name))
    assert np.array_equal(first_vectors, second_vectors)
