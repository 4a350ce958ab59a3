"""Passwords and tokens reach no log, no record and no job; files lead out of no folder."""

import ast
import json
import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import load_config, parse_config
from egra_dist.errors import UserError
from egra_dist.redaction import is_secret_name, redact, redacted
from egra_dist.sweep.run import Sweep
from egra_dist.sweep.space import parse_space
from egra_dist.tracking.client import without_password
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.ledger import Ledger, RunEntry
from egra_dist.tracking.mirror import lock_folder
from egra_dist.tracking.noise import setup_logging
from egra_dist.tracking.sync import sync
from egra_dist.train.dcp_reader import DamagedError, SafeReader
from egra_dist.train.task import Recording

PACKAGE = Path(__file__).parents[2] / "egra_dist"
TOKEN = "tok-1234567890"
URI = "postgresql://me:pa/ss@word@host:5432/db"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        (f"cannot reach {URI}: no", "cannot reach postgresql://***@host:5432/db: no"),
        ("s3://bucket/x?region=a&secret_key=abc", "s3://bucket/x?region=a&secret_key=***"),
        (f"401 for Bearer {TOKEN}!", "401 for Bearer ***!"),
        ("http://127.0.0.1:5000/health", "http://127.0.0.1:5000/health"),
        ("sqlite:////mnt/runs/first/mlflow.db", "sqlite:////mnt/runs/first/mlflow.db"),
        ("recall@20 0.1234", "recall@20 0.1234"),
    ],
)
def test_what_gives_away_is_hidden_and_nothing_else(monkeypatch, text, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AWS_SECRET_ACCESS_KEY", True), ("AWS_ACCESS_KEY_ID", True), ("HF_TOKEN", True),
        ("MLFLOW_TRACKING_PASSWORD", True), ("api_key", True), ("TOKENIZERS_PARALLELISM", False),
        ("RAY_AUTH_TOKEN_PATH", False), ("OMP_NUM_THREADS", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name, expected):
    assert is_secret_name(name) == expected


def test_short_values_are_left_alone(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "true")
    assert redacted({"a": ["true", 1], "b": {"c": URI}}) == {
        "a": ["true", 1],
        "b": {"c": "postgresql://***@host:5432/db"},
    }


def test_logs_and_their_tracebacks_hide_it(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    before = logging.getLogger().handlers[:]
    setup_logging(0)
    try:
        raise ConnectionError(URI)
    except ConnectionError:
        logging.getLogger("egra_dist").exception("token %s", TOKEN)
    finally:
        logging.getLogger().handlers[:] = before
    said = capsys.readouterr().err
    assert "ConnectionError" in said
    assert TOKEN not in said and "ss@word" not in said


@pytest.mark.parametrize(("raised", "status"), [("UserError", 2), ("RuntimeError", 1)])
def test_the_command_line_hides_it_and_tells_mistakes_from_failures(raised, status):
    code = f"""
import sys
from egra_dist import cli
from egra_dist.errors import UserError
def fail(arguments): raise {raised}({URI!r})
cli.app = fail
cli._MODULES = ()
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status
    assert "postgresql://***@host:5432/db" in done.stderr.splitlines()[-1]
    assert "ss@word" not in done.stderr


def test_the_record_hides_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = {"tracking": {"uri": URI}, "path": f"s3://{TOKEN}"}
    with Experiment.open(
        None, tmp_path / "run", "egra", tags={"from": URI}, params=params
    ) as experiment:
        experiment.log_dict({"uri": URI}, "a.json")
        experiment.log_text(TOKEN, "a.txt")
        experiment.set_tags({"later": TOKEN})
    texts = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"tracking.uri" in text for text in texts)
    for text in texts:
        assert b"ss@word" not in text and TOKEN.encode() not in text
    assert "ss@word" not in repr(Recording(URI, "a", tmp_path))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (URI, "postgresql://host:5432/db"),
        ("mysql+pymysql://me@host/db", "mysql+pymysql://host/db"),
        ("http://me:word@host:5000/a@b", "http://host:5000/a@b"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////folder/a@b:c@d.db", "sqlite:////folder/a@b:c@d.db"),
    ],
)
def test_a_tracking_uri_is_written_down_without_its_password(uri, expected):
    assert without_password(uri) == expected


def test_a_search_hides_it(catalog, tmp_path):
    space = parse_space({"space": {"train.batch_size": {"grid": [64]}}})
    config = parse_config({"tracking": {"uri": URI}})
    sweep = Sweep(config, Catalog.open(catalog), space, tmp_path / "sweep", 0, "space")
    experiment = SimpleNamespace(uri=URI, tags_of_nested_runs={})
    (trial,) = sweep.record.trials
    task = sweep._task(trial, config.cluster, experiment)
    trial.report(1, 0.5)
    trial.status = "finished"
    best = sweep.record.write_best(sweep.best_config(), sweep.metric)
    assert load_config(best).tracking.uri == "postgresql://host:5432/db"
    assert load_config(Path(task.folder) / "config.yaml").tracking.uri is None
    texts = [path.read_text() for path in sweep.record.folder.rglob("*") if path.is_file()]
    assert len(texts) == 4
    assert not any("ss@word" in text for text in [*texts, repr(task)])


def test_settings_name_no_secret():
    with pytest.raises(UserError, match=r"cluster\.environment\.AWS_SECRET_ACCESS_KEY") as error:
        parse_config({"cluster": {"environment": {"AWS_SECRET_ACCESS_KEY": TOKEN}}})
    assert TOKEN not in str(error.value)


@pytest.fixture
def catalog(tmp_path):
    settings = SynthSettings(num_items=60, num_users=20, num_interactions=100)
    return synthesize(settings, tmp_path / "catalog").path


def test_a_modality_leads_out_of_no_folder(catalog):
    manifest = json.loads((catalog / "manifest.json").read_text())
    manifest["counts"]["modalities"] = {"../../outside": {}}
    (catalog / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no name of a file"):
        Catalog.open(catalog)


def test_links_lead_out_of_no_catalogue(catalog, tmp_path):
    modality = Catalog.open(catalog).modalities[0]
    for inner in (f"features/{modality}.npy", "interactions/train/part-00000.parquet"):
        file, outside = catalog / inner, tmp_path / Path(inner).name
        file.rename(outside)
        file.symlink_to(outside)
    with pytest.raises(UserError, match="leads out of"):
        Catalog.open(catalog).features(modality)
    with pytest.raises(UserError, match="leads out of"):
        Catalog.open(catalog).interactions("train")
    (tmp_path / "link").symlink_to(catalog)  # the folder itself may lie elsewhere
    assert Catalog.open(tmp_path / "link").raw_ids("users")


@pytest.mark.filterwarnings("ignore")
def test_links_lead_out_of_no_checkpoint(tmp_path):
    dcp.save({"a": torch.ones(3)}, checkpoint_id=tmp_path / "step-1")
    file = next((tmp_path / "step-1").glob("*.distcp"))
    file.rename(tmp_path / "outside")
    file.symlink_to(tmp_path / "outside")
    with pytest.raises(DamagedError, match="leads out of"):
        SafeReader(tmp_path / "step-1").read_metadata()


def test_a_record_delivers_nothing_from_outside_of_its_folder(tmp_path):
    ledger = Ledger(None, "egra", {"": RunEntry("", "first", key="../../outside")})
    ledger.write(tmp_path)
    with pytest.raises(UserError, match="no name of a file"):
        Ledger.read(tmp_path)


def test_what_waits_for_mlflow_leads_out_of_no_run_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run, outside = tmp_path / "run", tmp_path / "outside"
    with Experiment.open(None, run, "egra"):
        pass
    outside.mkdir()
    (outside / "id_rsa").write_text(TOKEN)
    waiting = run / "spool" / Ledger.read(run).runs[""].key
    for link, target in ((waiting / "plan" / "a.txt", outside / "id_rsa"), (waiting, outside)):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        with pytest.raises(UserError, match=f"^{link}: leads out of"):
            sync(run)
        assert (outside / "id_rsa").read_text() == TOKEN
        assert not list((run / "mlartifacts").rglob("*.txt"))
        shutil.rmtree(waiting, ignore_errors=True)


def test_the_lock_of_a_run_folder_empties_no_other_file(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run" / "spool").mkdir(parents=True)
    (tmp_path / "run" / "spool" / "lock").symlink_to(tmp_path / "precious")
    lock_folder(tmp_path / "run").close()
    assert (tmp_path / "precious").read_text() == "kept"


def test_arrays_of_objects_are_not_unpickled(catalog):
    class Hostile:
        def __reduce__(self):
            return (print, ("unpickled",))

    modality = Catalog.open(catalog).modalities[0]
    array = np.empty((60, 1), dtype=object)
    array[:] = Hostile()
    np.save(catalog / "features" / f"{modality}.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match="not a readable"):
        Catalog.open(catalog).features(modality)
    assert pickle.dumps(Hostile())


FORBIDDEN = {
    "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "yaml.load",
    "yaml.unsafe_load", "eval", "exec", "os.system", "marshal.loads", "shelve.open",
}  # fmt: skip


def test_nothing_in_the_package_runs_what_it_reads():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found += [f"{path}:{node.lineno}: {wrong}" for wrong in _wrong(node)]
    assert not found


def _wrong(call):
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in FORBIDDEN:
        yield name
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only"
    if given.get("allow_pickle") == "True":
        yield "allow_pickle"
    if given.get("shell") == "True":
        yield "shell"
    if name == "dcp.load" and "SafeReader" not in given.get("storage_reader", ""):
        yield "dcp.load without SafeReader"
