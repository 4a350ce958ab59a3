"""Which searches are the same."""

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import parse_config
from egra_dist.errors import UserError
from egra_dist.sweep.run import Sweep
from egra_dist.sweep.space import parse_space


def test_scores_of_a_sample_of_users_are_of_another_search(tmp_path):
    settings = SynthSettings(num_items=60, num_users=40, num_interactions=200)
    catalog = synthesize(settings, tmp_path / "catalog")
    space = parse_space({"space": {"train.batch_size": {"grid": [64]}}})

    def open_sweep(**evaluation):
        config = parse_config({"evaluation": evaluation})
        return Sweep(config, catalog, space, tmp_path / "sweep", 0, "space")

    open_sweep().record.save()
    open_sweep(cutoffs=[20, 50])
    with pytest.raises(UserError, match="num_users"):
        open_sweep(num_users=10)
