"""What the settings of models are by default, and which do not go together."""

import pytest

from egra_dist.config import (
    Config,
    ItemGraphSettings,
    ModelSettings,
    PretrainSettings,
    TrainingSettings,
    load_config,
    parse_config,
)
from egra_dist.errors import UserError

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


TORCHREC = ["train.tables.lookup=torchrec", "train.propagation.mode=sampled"]
MANAGED = "train.tables.managed_collision.item_rows=12"
ADAGRAD = "train.optimizer.tables=rowwise_adagrad"


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (
            ["train.tables.sharding=[column_wise]"],
            "sharding = ['column_wise']: needs tables.lookup",
        ),
        (["train.tables.kernel=fused_uvm"], "tables.kernel = 'fused_uvm': needs tables.lookup"),
        (["train.tables.lookup=torchrec"], "needs propagation.mode = 'sampled', not 'exact'"),
        ([*TORCHREC, ADAGRAD, "train.optimizer.table_type=bfloat16"], "'torchrec' needs 'float32'"),
        (TORCHREC, "train.optimizer.tables = 'adam': with tables.lookup = 'torchrec' and"),
        (
            [*TORCHREC, ADAGRAD, "train.tables.kernel=fused_uvm_caching"],
            "train.tables.kernel = 'fused_uvm_caching': needs GPUs",
        ),
        (["train.tables.sharding=[]"], "train.tables.sharding = []: list should have at least 1"),
        (["train.tables.sharding=[grid]"], "train.tables.sharding.0 = 'grid': input should be"),
        (["train.tables.cache_load_factor=0"], "train.tables.cache_load_factor = 0: input should"),
        ([MANAGED], "tables.managed_collision: needs tables.lookup = 'torchrec'"),
        (
            [*TORCHREC, ADAGRAD, MANAGED, "train.tables.sharding=[table_wise]"],
            "tables.sharding = ['table_wise']: only ['row_wise'] with managed_collision",
        ),
        (
            [*TORCHREC, MANAGED, "train.tables.kernel=fused_uvm_caching"],
            "tables.kernel = 'fused_uvm_caching': only 'fused' and 'fused_uvm'",
        ),
        ([*TORCHREC, ADAGRAD, MANAGED, "train.warm_start=x"], "warm_start = 'x': not with"),
        (
            [*TORCHREC, ADAGRAD, MANAGED, "cluster.num_workers=8", "cluster.min_workers=7"],
            "cluster.min_workers = 7: not with train.tables.managed_collision",
        ),
        (
            [*TORCHREC, ADAGRAD, MANAGED, "cluster.num_workers=8"],
            "train.tables.managed_collision.item_rows = 12: at least two for each of 8 workers",
        ),
        (["train.tables.column_width=6"], "train.tables.column_width = 6: input should be a mult"),
    ],
)
def test_tables_that_cannot_be_looked_up_so_are_refused(overrides, shown):
    with pytest.raises(UserError) as raised:
        load_config(None, overrides)
    assert shown in str(raised.value)


def test_gpus_have_more_kernels_than_cpus():
    on_cpus = load_config(None, [*TORCHREC, ADAGRAD])
    assert on_cpus.train.tables.kernel == "fused"
    on_gpus = [*TORCHREC, "cluster.gpus_per_worker=1", "train.tables.kernel=fused_uvm_caching"]
    assert load_config(None, on_gpus).train.optimizer.tables == "adam"


def test_histories_are_tried_once_each():
    tried = load_config(None, ["history.shares=[0, 0.5, 0]", "history.decays=[0.2, 1]"]).history
    assert tried.candidates == [(0, 1), (0.5, 0.2), (0.5, 1)]
    assert tried.is_used and tried.needs_times
    plain_mean = load_config(None, ["history.shares=[1]", "history.decays=[1]"]).history
    assert plain_mean.is_used and not plain_mean.needs_times
    assert not Config().history.is_used and not Config().history.needs_times


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("history.shares=[]", "history.shares"),
        ("history.shares=[-0.1]", "history.shares.0"),
        ("history.decays=[0]", "history.decays.0"),
        ("history.decays=[1.2]", "history.decays.0"),
    ],
)
def test_histories_outside_their_bounds_are_refused(setting, words):
    with pytest.raises(UserError, match=words):
        load_config(None, [setting])
