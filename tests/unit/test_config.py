from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egra_dist.config import (
    ClusterSettings,
    Config,
    ItemGraphSettings,
    ModelSettings,
    PretrainSettings,
    TrainingSettings,
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


FIXED = {"focus": "uniform", "ramp": "constant"}


@pytest.mark.parametrize("name", ["mgcn", "gume"])
@pytest.mark.parametrize("section", ["train", "pretrain"])
def test_mgcn_and_gume_align_all_alike_unless_told_otherwise(name, section):
    config = load_config(None, [f"{section}.model.name={name}"])
    alignment = getattr(config, section).alignment
    assert alignment.model_dump(include={"focus", "ramp"}) == FIXED
    told = load_config(None, [f"{section}.model.name={name}", f"{section}.alignment.focus=easy"])
    assert getattr(told, section).alignment.focus == "easy"
    assert getattr(told, section).alignment.ramp == "constant"


def test_models_have_defaults_by_whatever_way_they_are_named():
    assert Config().pretrain.alignment.focus == "uniform"
    assert Config().train.alignment.focus == "hard"
    assert (
        PretrainSettings().alignment == TrainingSettings(model=ModelSettings(name="mgcn")).alignment
    )
    as_mgcn = parse_config({"baselines": {"mine": {"model": {"name": "mgcn"}}}}).baselines["mine"]
    assert as_mgcn.alignment == Config().pretrain.alignment
    egra = parse_config({"pretrain": {"model": {"name": "egra"}}}).pretrain
    assert egra.alignment == Config().train.alignment


def test_defaults_of_a_model_are_written_and_read_back():
    config = parse_config({"baselines": {"mine": {"model": {"name": "gume"}}}})
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", ["lightgcn", "vbpr", "bm3", "freedom", "mgcn", "egra"])
def test_only_gume_has_an_item_graph_without_being_given_one(name):
    baselines = {"mine": {"model": {"name": name}}, "other": {"model": {"name": "gume"}}}
    config = parse_config({"baselines": baselines})
    assert config.baselines["mine"].merged_graph is None
    graph = config.baselines["other"].merged_graph
    assert (graph.source, graph.combine) == ("raw", "intersection")
    assert config.item_graphs == {"other": graph, "train": config.item_graph}


def test_item_graph_that_a_baseline_is_given_is_the_one_it_has():
    own = {"model": {"name": "gume"}, "item_graph": {"source": "pretrained", "beta": 1.5}}
    baseline = parse_config({"baselines": {"mine": own}}).baselines["mine"]
    assert baseline.merged_graph == baseline.item_graph
    assert baseline.merged_graph.beta == 1.5
    assert baseline.merged_graph.is_pretrained


@pytest.mark.parametrize(
    ("graph", "shown"),
    [
        ({"source": "vectors"}, "item_graph.vectors = None"),
        ({"source": "raw", "vectors": "mine.parquet"}, "item_graph.vectors = mine.parquet"),
        ({"vectors": "mine.parquet"}, "item_graph.vectors = mine.parquet"),
    ],
)
def test_own_vectors_are_named_where_they_are_used_and_nowhere_else(graph, shown):
    with pytest.raises(UserError, match=f"{shown}: needed with source 'vectors', and only there"):
        parse_config({"item_graph": graph})


@pytest.mark.parametrize(
    ("source", "is_pretrained"),
    [("pretrained", True), ("both", True), ("raw", False), ("none", False)],
)
def test_source_says_whether_something_is_pretrained(source, is_pretrained):
    assert ItemGraphSettings(source=source).is_pretrained == is_pretrained


def test_users_of_vbpr_are_twice_as_wide():
    assert ModelSettings(name="vbpr", dim=32).user_dim == 64
    assert ModelSettings(name="bm3", dim=32).user_dim == 32


def test_an_item_graph_that_a_model_cannot_use_is_refused():
    baseline = {"model": {"name": "vbpr"}, "item_graph": {"source": "raw"}}
    with pytest.raises(UserError, match="item_graph: vbpr propagates over no merged graph"):
        parse_config({"baselines": {"look": baseline}})


def test_models_without_item_graph_need_no_pretraining():
    assert "train" in parse_config({}).item_graphs
    assert not parse_config({"train": {"model": {"name": "mgcn"}}}).item_graphs
    assert not parse_config({"item_graph": {"source": "none"}}).item_graphs
    baseline = {"model": {"name": "gume"}, "item_graph": {"source": "none"}}
    config = parse_config({"item_graph": {"source": "none"}, "baselines": {"plain": baseline}})
    assert not config.item_graphs


@pytest.mark.parametrize("name", ["vbpr", "bm3", "freedom"])
def test_models_that_need_the_whole_graph_are_not_sampled(name):
    with pytest.raises(UserError, match=f"{name} is trained on the whole graph"):
        load_config(None, [f"train.model.name={name}", "train.propagation.mode=sampled"])


@pytest.mark.parametrize(
    "others",
    [
        [],
        ["train.optimizer.tables=rowwise_adagrad"],
        ["train.propagation.mode=sampled"],
    ],
)
def test_small_tables_need_updates_of_few_rows(others):
    small = "train.optimizer.table_type=bfloat16"
    with pytest.raises(UserError, match="table_type = 'bfloat16' needs"):
        load_config(None, [small, *others])
    whole = ["train.optimizer.tables=rowwise_adagrad", "train.propagation.mode=sampled"]
    assert load_config(None, [small, *whole]).train.optimizer.table_type == "bfloat16"
