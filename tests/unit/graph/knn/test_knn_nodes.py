"""How tasks are dealt to nodes, without a cluster."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from egra_dist.graph.knn import nodes
from egra_dist.graph.knn.nodes import WINDOW_PER_SLOT, Queues, run_on_nodes
from egra_dist.graph.knn.tasks import Done


def test_each_node_gets_a_range_of_its_share_of_the_cost_heaviest_first():
    weights = np.random.default_rng(0).lognormal(size=600)
    queues = Queues(weights, [4, 8])
    own = [[], []]
    for node, share in ((0, 1 / 3), (1, 2 / 3)):
        while len(own[node]) < 20:
            own[node].append(queues.take(node))
        assert np.all(np.diff(weights[own[node]]) <= 0)
        first = np.searchsorted(np.cumsum(weights), [0, weights.sum() / 3])[node]
        last = np.searchsorted(np.cumsum(weights), weights.sum() * (1 / 3 + share * node))
        assert first <= min(own[node]) <= max(own[node]) <= last + 1


def test_an_idle_node_takes_from_the_others_and_every_task_runs_once():
    queues = Queues([1.0] * 10, [1, 1, 1])
    taken = [queues.take(2) for _ in range(10)]
    assert sorted(taken) == list(range(10))
    assert queues.take(0) is None


class FakeRay:
    """Two nodes of 2 and 3 slots, one of them dead and one without a slot; the last ends first."""

    def __init__(self, **slots):
        self.in_flight, self.most = [], 0
        self.slots = slots or {"a": 2, "b": 3, "dead": 7, "driver": 0}

    def nodes(self):
        return [
            {
                "NodeID": name,
                "Alive": name != "dead",
                "Resources": {"CPU": float(cpus), "GPU": float(cpus > 2)},
            }
            for name, cpus in self.slots.items()
        ]

    def remote(self, **needs):
        self.needs = needs
        return lambda function: self

    def options(self, scheduling_strategy):
        return SimpleNamespace(remote=self.submit)

    def submit(self, number):
        self.in_flight.append(number)
        self.most = max(self.most, len(self.in_flight))
        return number

    def wait(self, waiting):
        return waiting[-1:], waiting[:-1]

    def get(self, number):
        self.in_flight.remove(number)
        return Done(number, 0.0, 0)


@pytest.mark.parametrize("num_tasks", [3, 200])
def test_tasks_in_flight_are_bounded_by_the_slots(monkeypatch, num_tasks):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(nodes, "_near", lambda node: node)
    calls = [(number,) for number in range(num_tasks)]
    done = [each.number for each in run_on_nodes(calls, [1.0] * num_tasks)]
    assert sorted(done) == list(range(num_tasks))
    assert ray.most == min(num_tasks, WINDOW_PER_SLOT * 5)


def test_tasks_of_a_gpu_are_given_one_each(monkeypatch):
    ray, nodes_used = FakeRay(), []
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(nodes, "_near", lambda node: nodes_used.append(node) or node)
    list(run_on_nodes([(number,) for number in range(20)], [1.0] * 20, "cuda"))
    assert ray.needs["num_gpus"] == 1 and ray.needs["num_cpus"] == 0
    assert set(nodes_used) == {"b"}, "the only node alive with a GPU"
    assert ray.most == WINDOW_PER_SLOT


def test_tasks_run_on_a_cluster_whose_nodes_are_still_to_come(monkeypatch):
    ray, near = FakeRay(driver=0), []
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray, "options", lambda scheduling_strategy: near.append(
        scheduling_strategy) or SimpleNamespace(remote=ray.submit))  # fmt: skip
    done = [each.number for each in run_on_nodes([(0,), (1,)], [1.0, 1.0])]
    assert sorted(done) == [0, 1]
    assert set(near) == {"DEFAULT"}
