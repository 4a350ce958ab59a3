"""Ours is shown, the libraries' only when asked, and what the user has set stays."""

import logging
import os
import subprocess
import sys
import textwrap

import pytest

from egra_dist.tracking.noise import quiet_environment

CHATTER = """
    import logging, os, sys, warnings
    from egra_dist.tracking.noise import quiet_environment, setup_logging
    verbose = int(sys.argv[1])
    os.environ.update(quiet_environment(verbose=verbose))
    logging.basicConfig(level=logging.INFO)
    setup_logging(verbose)
    setup_logging(verbose)
    logging.getLogger("egra_dist.some.room").info("ours")
    logging.getLogger("egra_dist.some.room").debug("details")
    logging.getLogger("egra_dist.some.room").warning("beware")
    logging.getLogger("torchrec.distributed.planner").warning("planner chatter")
    logging.info("root chatter")
    warnings.warn("deprecated", FutureWarning)
    logging.getLogger("ray.train").error("real trouble")
"""


def said(code: str, verbose: int) -> str:
    """What a fresh process with nothing set says."""
    environment = {n: v for n, v in os.environ.items() if n not in quiet_environment()}
    command = [sys.executable, "-c", textwrap.dedent(code), str(verbose)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == ""
    return result.stderr


def test_ours_is_shown_once_and_chatter_is_not():
    lines = [line.split(" ", 1)[1] for line in said(CHATTER, verbose=0).splitlines()]
    assert lines == ["ours", "warning: beware", "error: real trouble"]


def test_verbose_shows_the_libraries_with_their_names():
    shown = said(CHATTER, verbose=1)
    assert "torchrec.distributed.planner warning: planner chatter" in shown
    assert "root root chatter" in shown
    assert "FutureWarning: deprecated" in shown
    assert "details" not in shown


def test_twice_verbose_shows_our_details():
    assert "egra_dist.some.room details" in said(CHATTER, verbose=2)


def test_what_the_user_set_stays():
    quiet = quiet_environment(environment={"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"})
    assert quiet["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert quiet["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_a_cluster_keeps_its_preemption_watcher():
    watcher = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    assert quiet_environment(environment={})[watcher] == "0"
    assert watcher not in quiet_environment(local=False, environment={})


@pytest.mark.parametrize("verbose", [0, 1])
def test_torchrec_is_quiet_unless_verbose(verbose):
    code = """
        import logging, os, sys
        from egra_dist.tracking.noise import quiet_environment, setup_logging
        verbose = int(sys.argv[1])
        os.environ.update(quiet_environment(verbose=verbose))
        setup_logging(verbose)
        from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
        EmbeddingShardingPlanner(topology=Topology(world_size=1, compute_device="cpu"))
    """
    assert (said(code, verbose) == "") == (verbose == 0)


def test_other_handlers_stay(monkeypatch):
    from egra_dist.tracking.noise import setup_logging

    root = logging.getLogger()
    before = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in ("", "ray", "mlflow", "egra_dist")}
    monkeypatch.setattr(root, "handlers", [*before, logging.NullHandler()])
    setup_logging(1)
    assert any(isinstance(handler, logging.NullHandler) for handler in root.handlers)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
