"""Nothing lost, nothing twice, and nobody waits: on a real sqlite store."""

import logging
import math
import subprocess
import sys
import textwrap
import time
import uuid

import pytest

from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder

NOBODY = "http://127.0.0.1:9"  # The discard port: refused at once.


def recorder(uri, run_id, tmp_path, **options):
    options = {"interval_seconds": 0.02, "system_seconds": None, **options}
    return MetricRecorder(uri, run_id, tmp_path / "spool", **options)


def values(uri, run_id, name):
    return [(v.step, v.value) for v in Records(uri).series(run_id, name)]


def test_round_trip_of_more_than_a_batch(uri, new_run, tmp_path):
    run_id = new_run()
    record = recorder(uri, run_id, tmp_path)
    for step in range(700):
        record.log(step, {"train/loss": step / 7, "recall@20": 0.5, "a b?c": 1})
    assert record.close(timeout=60)
    assert values(uri, run_id, "train/loss") == [(step, step / 7) for step in range(700)]
    assert len(values(uri, run_id, "recall_at_20")) == 700
    assert set(Records(uri).run(run_id).metrics) == {"train/loss", "recall_at_20", "a b_c"}


def test_one_line_with_more_than_a_batch(uri, new_run, tmp_path):
    run_id = new_run()
    record = recorder(uri, run_id, tmp_path)
    record.log(0, {f"m{i}": i for i in range(1500)})
    assert record.close(timeout=60)
    assert len(Records(uri).run(run_id).metrics) == 1500


def test_non_finite_values_arrive_as_nan(uri, new_run, tmp_path):
    run_id = new_run()
    record = recorder(uri, run_id, tmp_path)
    for step, value in enumerate([math.nan, math.inf, -math.inf, 1.0]):
        record.log(step, {"loss": value})
    assert record.close(timeout=60)
    arrived = [value for _, value in values(uri, run_id, "loss")]
    assert all(math.isnan(value) for value in arrived[:3])
    assert arrived[3] == 1.0


def test_a_restarted_training_may_log_its_last_steps_again(uri, new_run, tmp_path):
    run_id = new_run()
    for steps in (range(10), range(5, 20)):
        record = recorder(uri, run_id, tmp_path)
        for step in steps:
            record.log(step, {"loss": step})
        assert record.close(timeout=60)
    assert values(uri, run_id, "loss") == [(step, step) for step in range(20)]


def test_so_may_one_whose_spool_was_lost_with_its_machine(uri, new_run, tmp_path):
    run_id = new_run()
    for machine, steps in (("a", range(10)), ("b", range(5, 20))):
        record = recorder(uri, run_id, tmp_path / machine)
        for step in steps:
            record.log(step, {"loss": step})
        assert record.close(timeout=60)
    assert values(uri, run_id, "loss") == [(step, step) for step in range(20)]


def test_a_delivery_that_was_not_noted_does_no_harm(uri, new_run, tmp_path):
    run_id = new_run()
    record = recorder(uri, run_id, tmp_path)
    for step in range(10):
        record.log(step, {"loss": 1.0})
    assert record.close(timeout=60)
    (tmp_path / "spool" / f"{run_id}.delivered").unlink()
    assert recorder(uri, run_id, tmp_path).close(timeout=60)
    assert values(uri, run_id, "loss") == [(step, 1.0) for step in range(10)]


def test_while_mlflow_is_away_nobody_waits_and_the_next_start_delivers(
    uri, new_run, tmp_path, caplog
):
    run_id = new_run()
    record = recorder(NOBODY, run_id, tmp_path)
    start = time.monotonic()
    for step in range(500):
        record.log(step, {"loss": step})
    assert time.monotonic() - start < 2
    with caplog.at_level(logging.WARNING, "egra_dist"):
        time.sleep(0.2)
        assert not record.close(timeout=10)
    assert len([m for m in caplog.messages if "MLflow is away" in m]) <= 1
    assert f"egra-dist track sync {tmp_path}" in caplog.text
    assert values(uri, run_id, "loss") == []
    assert recorder(uri, run_id, tmp_path).close(timeout=60)
    assert values(uri, run_id, "loss") == [(step, step) for step in range(500)]


def test_what_a_killed_process_had_logged_is_delivered_by_the_next(uri, new_run, tmp_path):
    run_id = new_run()
    code = f"""
        import os, signal
        from pathlib import Path
        from egra_dist.tracking.recorder import MetricRecorder
        record = MetricRecorder({NOBODY!r}, {run_id!r}, Path({str(tmp_path)!r}) / "spool")
        for step in range(100):
            record.log(step, {{"loss": step}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == -9
    assert recorder(uri, run_id, tmp_path).close(timeout=60)
    assert values(uri, run_id, "loss") == [(step, step) for step in range(100)]


def test_metrics_of_a_run_that_mlflow_does_not_know_stay(uri, tmp_path):
    run_id = uuid.uuid4().hex
    record = recorder(uri, run_id, tmp_path)
    record.log(0, {"loss": 1.0})
    assert not record.close(timeout=30)
    assert "loss" in (tmp_path / "spool" / f"{run_id}.jsonl").read_text()


def test_training_goes_on_when_the_spool_cannot_be_written(uri, new_run, tmp_path, caplog):
    record = recorder(uri, new_run(), tmp_path)
    record._writer.close()  # As a lost file system would: every write fails from now on.
    with caplog.at_level(logging.WARNING, "egra_dist"):
        record.log(1, {"loss": 1.0})
        record.log(2, {"loss": 1.0})
    assert len([m for m in caplog.messages if "metrics are being lost" in m]) == 1
    record.close(timeout=30)


@pytest.mark.parametrize("wanted", [True, False])
def test_system_metrics_are_sampled_when_wanted(uri, new_run, tmp_path, wanted):
    run_id = new_run()
    for _ in range(2):  # A restarted training goes on counting.
        record = recorder(uri, run_id, tmp_path, system_seconds=0.05 if wanted else None)
        time.sleep(0.3)
        assert record.close(timeout=60)
    memory = values(uri, run_id, "system/process_memory_gib")
    assert bool(memory) == wanted
    assert [step for step, _ in memory] == list(range(len(memory)))
    assert all(0.01 < value < 100 for _, value in memory)
