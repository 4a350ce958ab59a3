import pytest

from egra_dist.cluster.resources import share_among_workers
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.sweep import placement


@pytest.fixture
def place(monkeypatch):
    """Places trials on nodes with these CPUs."""

    def on(nodes, wanted=None, num_trials=100, **cluster):
        resources = [{"CPU": cpus} for cpus in nodes]
        monkeypatch.setattr(
            placement, "worker_resources", lambda given: share_among_workers(given, resources)
        )
        found = placement.place_trials(ClusterSettings(**cluster), wanted, num_trials)
        return found[1], found[0].cpus_per_worker

    return on


def test_as_many_trials_as_fit_share_the_cpus(place):
    assert place([2]) == (2, 1)
    assert place([16]) == (8, 2)
    assert place([16], num_trials=3) == (3, 5)
    assert place([16], wanted=2) == (2, 8)
    assert place([16], num_workers=4) == (4, 1)
    assert place([16], cpus_per_worker=6) == (2, 6)
    assert place([4, 4], num_workers=2) == (4, 1)


def test_trials_know_no_address_but_that_of_the_session(place, monkeypatch):
    monkeypatch.setattr(
        placement, "worker_resources", lambda given: share_among_workers(given, [{"CPU": 2}])
    )
    settings, _ = placement.place_trials(ClusterSettings(address="head:6379"), None, 5)
    assert settings == ClusterSettings(cpus_per_worker=1)


def test_what_does_not_fit_is_said(place):
    with pytest.raises(UserError, match=r"max_concurrent = 3: .* holds at most 2 workers of 1 CPU"):
        place([2], wanted=3)
    with pytest.raises(
        UserError, match=r"max_concurrent = 1: .* holds at most 0 workers of 4 CPUs"
    ):
        place([2], cpus_per_worker=4)
