import os
import sys

import pytest

from egra_dist.cluster import session
from egra_dist.cluster.session import ray_session, worker_environment
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@pytest.fixture(autouse=True)
def no_inherited_environment(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def test_gloo_uses_the_loopback_on_one_machine_only():
    settings = ClusterSettings()
    assert worker_environment(settings, QUIET, local=True)["GLOO_SOCKET_IFNAME"] == LOOPBACK
    assert "GLOO_SOCKET_IFNAME" not in worker_environment(settings, QUIET, local=False)


def test_only_a_cluster_is_watched_for_machines_that_leave():
    name = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    assert worker_environment(ClusterSettings(), QUIET, local=True)[name] == "0"
    assert name not in worker_environment(ClusterSettings(), QUIET, local=False)


def test_the_settings_count_more_than_this_process_and_that_more_than_we(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    environment = worker_environment(ClusterSettings(), QUIET, local=True)
    assert environment["GLOO_SOCKET_IFNAME"] == "eth1"
    settings = ClusterSettings(environment={"GLOO_SOCKET_IFNAME": "eth2", "MINE": "1"})
    environment = worker_environment(settings, QUIET, local=True)
    assert (environment["GLOO_SOCKET_IFNAME"], environment["MINE"]) == ("eth2", "1")


def test_threads_are_left_to_ray_unless_the_user_sets_them(monkeypatch):
    assert "OMP_NUM_THREADS" not in worker_environment(ClusterSettings(), QUIET, local=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_environment(ClusterSettings(), QUIET, local=True)["OMP_NUM_THREADS"] == "3"


def test_workers_inherit_the_authentication_of_their_node():
    assert "RAY_AUTH_MODE" not in worker_environment(ClusterSettings(), QUIET, local=True)


def test_a_local_session_has_a_token_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    session.choose_authentication(local=True)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["nowhere", "environment", "file"])
def test_on_a_cluster_the_users_token_is_used(monkeypatch, tmp_path, kept):
    variables = {"HOME": str(tmp_path)}
    if kept == "environment":
        variables["RAY_AUTH_TOKEN"] = "secret"
    if kept == "file":
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").touch()
    monkeypatch.setattr(os, "environ", variables)
    session.choose_authentication(local=False)
    assert os.environ["RAY_AUTH_MODE"] == ("disabled" if kept == "nowhere" else "token")


def test_what_the_user_chose_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_MODE": "disabled"})
    session._prepare_process(QUIET, local=True)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_which_address_counts(monkeypatch):
    assert session._address(ClusterSettings()) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert session._address(ClusterSettings()) == "10.0.0.1:6379"
    assert session._address(ClusterSettings(address="10.0.0.2:6379")) == "10.0.0.2:6379"
    assert session._address(ClusterSettings(address="local")) is None


def test_a_job_servers_address_is_told_apart():
    settings = ClusterSettings(address="http://10.0.0.1:8265")
    with pytest.raises(UserError, match="job server"), ray_session(settings):
        pass
