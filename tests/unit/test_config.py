from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egra_dist.config import (
    ClusterSettings,
    Config,
    load_config,
    parse_config,
)
from egra_dist.config.errors import known_keys
from egra_dist.errors import UserError

REPOSITORY = Path(__file__).parent.parent.parent


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_without_a_file_everything_has_its_default():
    assert load_config(None) == Config()


def test_file_then_overrides_in_order(tmp_path):
    path = write(tmp_path, "seed: 3\ntrain:\n  batch_size: 512\n")
    config = load_config(
        path, ["train.batch_size=64", "train.batch_size=128", "pretrain.patience=2"]
    )
    assert (config.seed, config.train.batch_size, config.pretrain.patience) == (3, 128, 2)


def test_an_override_below_pretrain_leaves_its_other_defaults():
    config = load_config(None, ["pretrain.batch_size=128"])
    expected = Config().pretrain.model_copy(update={"batch_size": 128})
    assert config.pretrain == expected


def test_overrides_are_read_as_yaml():
    overrides = ["evaluation.cutoffs=[20, 100]", "tracking.uri=null", "tracking.system_metrics=no"]
    config = load_config(None, overrides)
    assert config.evaluation.cutoffs == [20, 100]
    assert config.tracking.uri is None
    assert config.tracking.system_metrics is False


def test_the_cluster_file_is_the_cluster_section_and_counts_more(tmp_path):
    path = write(tmp_path, "cluster: {num_workers: 2, max_failures: 7}\n")
    cluster = write(tmp_path, "num_workers: 4\n", "cluster.yaml")
    config = load_config(path, cluster=cluster)
    assert (config.cluster.num_workers, config.cluster.max_failures) == (4, 7)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batchsize=3", ["train.batchsize", "did you mean 'train.batch_size'"]),
        ("batch_size=3", ["'batch_size'", "train.batch_size"]),
        ("train.alignment.zzzz=3", ["train.alignment.zzzz", "allowed here", "focus", "ramp"]),
        ("train.alignment.focus=harder", ["train.alignment.focus", "'harder'", "'uniform'"]),
        ("train.batch_size=0", ["train.batch_size", "0", "greater than 0"]),
        ("train.batch_size=many", ["train.batch_size", "'many'", "integer"]),
        ("train.model.dim=63", ["train.model.dim", "63", "multiple of 4"]),
        ("item_graph.k=5000", ["item_graph.k", "5000", "less than or equal to 200"]),
        ("seed=4294967296", ["seed", "4294967296", "less than 4294967296"]),
        ("train.regularization=.inf", ["train.regularization", "inf", "finite number"]),
        ("train.optimizer.decay=1.5", ["train.optimizer.decay", "1.5", "less than or equal to 1"]),
        ("evaluation.cutoffs=[]", ["evaluation.cutoffs", "at least 1"]),
        ("cluster.num_workers=-1", ["cluster.num_workers", "-1"]),
        ("train.metric=recall_at_7", ["train.metric", "'recall_at_7'", "recall_at_20"]),
        ("seed=[1, 2]", ["seed", "[1, 2]", "integer"]),
    ],
)
def test_a_bad_setting_names_path_value_and_what_is_allowed(override, words):
    with pytest.raises(UserError) as caught:
        load_config(None, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("train.batch_size", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("seed.deep=3", "no settings below"),
        ("evaluation.cutoffs=[1, 2", "not a readable value"),
    ],
)
def test_a_malformed_override(tmp_path, override, word):
    path = write(tmp_path, "seed: 3\n")
    with pytest.raises(UserError, match=word):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("train: [unclosed", "not a readable YAML"),
        ("- a list", "expected a mapping"),
        ("just words", "expected a mapping"),
        ("tab:\n\t- x", "not a readable YAML"),
        ("seeed: 3", "did you mean 'seed'"),
        ("train: 3", "train = 3"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, word):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    assert word in message
    assert "\n" not in message


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="no such configuration file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a readable YAML"):
        load_config(tmp_path / "binary.yaml")


def test_an_empty_file_has_all_defaults(tmp_path):
    assert load_config(write(tmp_path, "# nothing yet\n")) == Config()


def test_many_problems_are_counted():
    fields = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    with pytest.raises(UserError, match=r"and 2 more"):
        parse_config(fields)


@given(st.integers(0, 2**31), st.integers(1, 10**6), st.floats(1e-6, 1e6))
def test_what_is_written_is_read_back(seed, batch_size, learning_rate):
    fields = {
        "seed": seed,
        "train": {"batch_size": batch_size, "optimizer": {"learning_rate": learning_rate}},
    }
    config = parse_config(fields)
    assert parse_config(config.model_dump(mode="json")) == config


def test_settings_cannot_change():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 4


def test_known_keys_are_dotted_paths_of_every_setting():
    keys = known_keys(Config)
    assert len(set(keys)) == len(keys)
    assert {"seed", "train.alignment.focus", "pretrain.model.dim", "cluster.environment"} <= set(
        keys
    )


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configurations_load(path):
    assert isinstance(load_config(path), Config)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "cluster").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_cluster_files_load_and_change_nothing_that_is_learned(path):
    config = load_config(None, cluster=path)
    assert config.cluster != ClusterSettings()
    assert config.model_copy(update={"cluster": ClusterSettings()}) == Config()


@pytest.mark.parametrize("name", ["train", "graphs", "a/b", "two words"])
def test_baseline_needs_a_name_of_its_own(name):
    with pytest.raises(UserError, match=rf"baselines.{name}: .* cannot be the name of a model"):
        parse_config({"baselines": {name: {"model": {"name": "lightgcn"}}}})


def test_metric_of_a_baseline_has_to_be_computed():
    with pytest.raises(UserError, match=r"mine.metric: 'recall_at_7' is not computed"):
        parse_config({"baselines": {"mine": {"metric": "recall_at_7"}}})
