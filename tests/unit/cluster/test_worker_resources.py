import pytest
from hypothesis import given
from hypothesis import strategies as st

from egra_dist.cluster import resources
from egra_dist.cluster.resources import (
    WorkerResources,
    num_local_cpus,
    num_local_slots,
    share_among_workers,
)
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError


@pytest.mark.parametrize(
    ("node_cpus", "num_workers", "expected"),
    [
        ([2], 1, 2),
        ([2], 2, 1),
        ([16], 3, 5),
        ([8, 8], 2, 8),
        ([8, 8], 3, 4),  # 5 each would be fair, but no node holds two workers of 5
        ([7, 1], 2, 3),
        ([64] * 8, 64, 8),
    ],
)
def test_workers_share_all_cpus_that_nodes_can_give(node_cpus, num_workers, expected):
    nodes = [{"CPU": float(cpus)} for cpus in node_cpus]
    settings = ClusterSettings(num_workers=num_workers)
    assert share_among_workers(settings, nodes) == WorkerResources(expected)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 20))
def test_the_share_is_the_largest_that_fits(node_cpus, num_workers):
    nodes = [{"CPU": float(cpus)} for cpus in node_cpus]

    def num_held(cpus):
        return sum(node // cpus for node in node_cpus)

    settings = ClusterSettings(num_workers=num_workers)
    if num_held(1) < num_workers:
        with pytest.raises(UserError):
            share_among_workers(settings, nodes)
        return
    cpus = share_among_workers(settings, nodes).cpus
    assert num_held(cpus) >= num_workers
    assert num_held(cpus + 1) < num_workers


def test_what_the_settings_say_is_kept():
    settings = ClusterSettings(num_workers=2, cpus_per_worker=3, gpus_per_worker=0.5)
    resources = share_among_workers(settings, [{"CPU": 16.0, "GPU": 1.0}])
    assert resources.as_ray() == {"CPU": 3.0, "GPU": 0.5}


def test_local_ray_has_the_cpus_that_workers_are_said_to_get():
    assert num_local_slots(ClusterSettings(num_workers=3, cpus_per_worker=2)) == 6
    assert num_local_slots(ClusterSettings(cpus_per_worker=1)) == 1
    assert num_local_slots(ClusterSettings(num_workers=999)) == 999


def test_no_gpu_is_not_asked_for():
    assert WorkerResources(2).as_ray() == {"CPU": 2.0}


@pytest.mark.parametrize(
    ("settings", "nodes", "words"),
    [
        (
            ClusterSettings(num_workers=5, cpus_per_worker=4),
            [{"CPU": 8.0}, {"CPU": 6.0}],
            ["num_workers = 5", "at most 3 workers of 4 CPUs", "2 nodes: 14 CPUs, 0 GPUs"],
        ),
        (
            ClusterSettings(num_workers=2, gpus_per_worker=1),
            [{"CPU": 8.0, "GPU": 1.0}],
            ["num_workers = 2", "at most 1 workers", "1 GPU", "1 node: 8 CPUs, 1 GPUs"],
        ),
        (ClusterSettings(num_workers=1), [], ["num_workers = 1", "at most 0", "0 nodes"]),
    ],
)
def test_more_than_the_cluster_can_ever_hold_is_refused(settings, nodes, words):
    with pytest.raises(UserError) as caught:
        share_among_workers(settings, nodes)
    for word in words:
        assert word in str(caught.value)


def test_a_cluster_that_grows_is_waited_for():
    settings = ClusterSettings(num_workers=5, cpus_per_worker=4)
    assert share_among_workers(settings, [{"CPU": 4.0}], can_grow=True).cpus == 4


def test_a_containers_quota_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(8)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(resources, "_CGROUP_QUOTA", quota)
    expected = {"max 100000": 8, "250000 100000": 2, "50000 100000": 1, "1600000 100000": 8}
    for text, num_cpus in expected.items():
        quota.write_text(text + "\n")
        assert num_local_cpus() == num_cpus
    quota.unlink()
    assert num_local_cpus() == 8


def test_a_local_ray_has_room_for_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(resources, "num_local_cpus", lambda: 2)
    assert num_local_slots(ClusterSettings(num_workers=1)) == 2
    assert num_local_slots(ClusterSettings(num_workers=4)) == 4
    assert num_local_slots(ClusterSettings(num_workers=4, cpus_per_worker=2)) == 8
