"""What a plan predicts, against what the real objects take."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import (
    EvaluationSettings,
    ItemGraphSettings,
    OptimizerSettings,
    PropagationSettings,
    TrainingSettings,
    load_config,
)
from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr
from egra_dist.graph.item import write_graphs, write_merged
from egra_dist.graph.knn import KnnSettings, build_knn
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows
from egra_dist.model.sparse import SparseMatrix
from egra_dist.plan import memory, sizes, traffic
from egra_dist.plan.plan import disk_bytes, make_plan
from egra_dist.plan.sampled import surroundings
from egra_dist.train.inference import Graphs
from egra_dist.train.optimizers import Optimizers
from egra_dist.train.sampled import neighborhood_sampler
from tests.plans import CONFIGS, call

K = 10
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A catalogue, its sizes, and the folder of its graphs."""
    folder = tmp_path_factory.mktemp("plan")
    catalog = synthesize(SynthSettings(2000, 3000, 40_000, dim=12), folder / "catalog")
    write_graphs(catalog, catalog.modalities, K, folder / "graphs")
    return catalog, sizes.sizes_of_catalog(catalog), folder / "graphs"


def array_bytes(folder):
    return sum(np.load(path, mmap_mode="r").nbytes for path in folder.glob("*.npy")) - 8


def near(value):
    return pytest.approx(value, rel=0.25)


def test_files_have_the_predicted_size(known):
    catalog, counted, graphs = known
    predicted = disk_bytes(load_config(None), counted)
    for name in ("training", "plain"):
        assert array_bytes(graphs / name) == predicted[name]
    for name in catalog.modalities:
        assert array_bytes(graphs / "features" / name) == near(predicted[f"features/{name}"])
    tables = sum(catalog.features(name).values.nbytes for name in catalog.modalities)
    assert predicted["feature tables"] == tables


@pytest.mark.parametrize("direction", ["directed", "union", "mutual"])
def test_merged_graph_has_about_the_predicted_size(known, tmp_path, direction):
    catalog, counted, graphs = known
    features = catalog.features("modality_0")
    knn = build_knn(features.values, KnnSettings(k=K), features.present)
    knn.save(tmp_path / "knn")
    config = load_config(None, [f"item_graph.direction={direction}"])
    write_merged(graphs, tmp_path / "knn", config.item_graph, tmp_path)
    predicted = disk_bytes(config, counted)["train.behavior"]
    assert array_bytes(tmp_path / "behavior") == near(predicted)


def test_modality_graphs_with_a_share_of_the_item_graph_have_the_predicted_size(known, tmp_path):
    catalog, counted, graphs = known
    vectors = np.random.default_rng(0).standard_normal((catalog.num_items, 8))
    build_knn(vectors.astype(np.float32), KnnSettings(k=K)).save(tmp_path / "knn")
    config = load_config(None, ["item_graph.modality_share=0.5"])
    write_merged(graphs, tmp_path / "knn", config.item_graph, tmp_path)
    predicted = disk_bytes(config, counted)
    for name in catalog.modalities:
        found = array_bytes(tmp_path / "features" / name)
        assert found == near(predicted[f"train.features/{name}"])
    without = disk_bytes(load_config(None), counted)
    assert predicted.keys() - without.keys() == {f"train.features/{m}" for m in catalog.modalities}


@pytest.mark.parametrize("num_workers", [2, 4, 16])
def test_halo_and_graph_are_those_of_a_worker(known, num_workers):
    catalog, counted, graphs = known
    nodes = NodePartition(
        RowPartition.even(catalog.num_users, num_workers),
        RowPartition.even(catalog.num_items, num_workers),
    )
    rows = take_rows(Csr.load(graphs / "plain"), nodes.own_nodes(0))
    positions = nodes.position_of_nodes(rows.indices).astype(np.int32)
    halo = np.unique(positions[positions >= nodes.positions.size(0)])
    worker = memory.largest_worker(counted, None, K, num_workers)
    assert (worker.users, worker.items) == (nodes.users.size(0), nodes.items.size(0))
    assert len(halo) == near(worker.halo)

    light = TrainingSettings.model_validate({"model": {"name": "lightgcn"}})
    own = SparseMatrix(Csr(rows.indptr, positions, rows.values, rows.num_columns), CPU)
    taken = sum(map(bytes_of, (own.rows, own.transpose, own.transpose)))  # columns as the transpose
    assert taken == near(memory.memory(counted, light, None, K, num_workers)["graph"])


def bytes_of(rows):
    return rows.indices.nbytes + rows.offsets.nbytes + rows.values.nbytes


def test_counts_alone_predict_no_smaller_halo(known):
    _, counted, _ = known
    alone = sizes.sizes_of_counts(
        counted.num_users, counted.num_items, counted.num_interactions, counted.modalities
    )
    few = memory.largest_worker(counted, None, K, 4).halo
    assert few < memory.largest_worker(alone, None, K, 4).halo < counted.num_nodes


@pytest.mark.parametrize(
    ("tables", "mode", "dtype"),
    [
        ("adam", "exact", torch.float32),
        ("rowwise_adagrad", "exact", torch.float32),
        ("rowwise_adagrad", "sampled", torch.bfloat16),
    ],
)
def test_tables_and_optimizer_have_the_predicted_size(known, tables, mode, dtype):
    _, counted, _ = known
    table_type = str(dtype).removeprefix("torch.")
    optimizer = OptimizerSettings(tables=tables, table_type=table_type)
    settings = TrainingSettings(optimizer=optimizer, propagation=PropagationSettings(mode=mode))
    predicted = memory.memory(counted, settings, None, K, 1)
    rows = {"user": counted.num_users, "item": counted.num_items}
    parameters = {
        name: torch.nn.Parameter(torch.zeros(n, 64, dtype=dtype)) for name, n in rows.items()
    }
    optimizers = Optimizers(parameters, [], settings.optimizer)
    optimizers.materialize()
    states = [
        v for name in rows for values in optimizers.table_state(name).values() for v in values
    ]
    assert sum(one.nbytes for one in parameters.values()) == predicted["tables"]
    assert sum(one.nbytes for one in states if one.dim()) == predicted["optimizer"]


def test_ranking_counts_who_is_evaluated_and_only_what_is_beyond_a_step(known):
    _, counted, _ = known
    many = replace(counted, num_interactions=10**9)
    everybody, some = (EvaluationSettings(num_users=n) for n in (None, counted.num_users // 4))
    tile = 4 * everybody.user_batch_size * everybody.item_tile_size
    alone = memory.ranking_bytes(many, everybody, 1) - tile
    assert alone == near(50e9)
    assert memory.ranking_bytes(many, everybody, 4) - tile == near(alone / 4)
    assert memory.ranking_bytes(many, some, 1) - tile == near(alone / 4)
    parts = make_plan(load_config(None), many, 1, 2**40).trainings["train"].memory
    assert parts["ranking"] + parts["activations"] == alone + tile
    assert (
        make_plan(load_config(None), counted, 1, 2**40).trainings["train"].memory["ranking"] < 2**27
    )


def test_parts_shrink_with_the_workers_and_one_worker_receives_nothing(known):
    _, counted, _ = known
    training, graph = TrainingSettings(), ItemGraphSettings()
    alone, shared = (memory.memory(counted, training, graph, K, w) for w in (1, 4))
    for part in ("tables", "gradients", "optimizer", "graph", "features", "activations"):
        assert shared[part] < alone[part]
    assert alone["halo"] == 0 < shared["halo"]
    assert traffic.bytes_per_step(counted, training, graph, K, 1) == 0
    assert traffic.bytes_per_step(counted, training, graph, K, 4) > 0


@pytest.mark.parametrize("num_items", [10**5, 10**8])
def test_searches_are_planned_on_gpus_where_workers_have_any(num_items):
    wanted = ["train.model.name=mgcn", "cluster.num_workers=4"]
    counted = sizes.sizes_of_counts(10**6, num_items, 10**7, {"text": 64})
    plans = [
        make_plan(load_config(None, [*wanted, f"cluster.gpus_per_worker={number}"]), counted, 4, 1)
        for number in (0, 1)
    ]
    on_cpus, on_gpus = (plan.searches["features/text"] for plan in plans)
    assert (on_cpus.processor, on_gpus.processor) == ("core", "GPU")
    assert on_gpus.hours == pytest.approx(on_gpus.seconds / 4 / 3600)
    assert on_gpus.seconds < on_cpus.seconds / 10
    assert on_gpus.method == ("exact" if num_items == 10**5 else "routed")


def test_exit_status_says_whether_it_fits(known):
    catalog = known[0]
    fits = call(CONFIGS / "default.yaml", "--catalog", catalog.path, "--workers", 3)
    assert fits.exit_code == 0, fits.output
    assert "steps per epoch" in fits.output
    counts = ("--users", 10**7, "--items", 10**7, "--interactions", 10**9)
    small = call(CONFIGS / "default.yaml", *counts, "--modality", "text:768", "--json")
    assert small.exit_code == 1
    made = json.loads(small.stdout)
    assert (made["fits"], made["num_workers"]) == (False, 1)
    assert made["trainings"]["train"]["steps_per_epoch"] == -(-(10**9) // 2048)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--users", 3), "give --catalog, or all of --users, --items and --interactions"),
        (("--modality", "text"), "--modality text: must be NAME:WIDTH"),
        (("--memory-per-worker", "lots"), "--memory-per-worker lots: must be a size"),
        (("--catalog", "here"), "--catalog: has counts of its own"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, words):
    counts = () if arguments[0] == "--users" else ("--users", 9, "--items", 9)
    counts += ("--interactions", 9) if counts else ()
    result = call(CONFIGS / "default.yaml", *counts, *arguments)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)


@pytest.mark.parametrize(("text", "size"), [("16G", 2**34), ("1.5GiB", 3 * 2**29), ("64M", 2**26)])
def test_sizes_in_words(text, size):
    assert sizes.parse_bytes(text) == size


@pytest.mark.parametrize("batch_size", [16, 256])
def test_sampled_step_needs_about_the_predicted_rows(known, tmp_path, batch_size):
    catalog, counted, graphs = known
    graph = ItemGraphSettings(k=5, beta=1)
    build_knn(catalog.features("modality_0").values, KnnSettings(k=5)).save(tmp_path / "knn")
    write_merged(graphs, tmp_path / "knn", graph, tmp_path)
    features = {name: Csr.load(graphs / "features" / name) for name in catalog.modalities}
    loaded = Graphs(Csr.load(tmp_path / "behavior"), Csr.load(graphs / "plain"), features)
    fields = {"mode": "sampled", "feature_neighbors": 3, "modality_items": 2}
    training = TrainingSettings(propagation=fields, batch_size=batch_size)
    random = np.random.default_rng(0)
    triplets = random.choice(counted.num_interactions, batch_size)
    users, items = (side[triplets] for side in catalog.interactions("train"))
    others = random.choice(counted.num_items, batch_size)
    nodes = np.concatenate([users, *(counted.num_users + ids for ids in (items, others))])
    sampler = neighborhood_sampler(loaded, counted.num_users, training)
    drawn = sampler.sample(nodes.astype(np.int64), key=1)
    around = surroundings(counted, training, graph, len(features), 1)
    assert 0.8 * len(drawn.inputs) <= around.rows <= 2 * len(drawn.inputs)
    most = max(len(block.columns) for block in drawn.sources.features.values())
    assert 0.8 * most <= around.sources <= 2 * most
    edges = sum(block.matrix.num_entries for block in drawn.layers)
    edges += sum(block.matrix.num_entries for block in drawn.sources.features.values())
    assert 0.8 * edges <= around.edges <= 2 * edges


def test_sampled_plan_does_not_grow_with_the_graph():
    counts = (10**6, 10**7), (10**6, 10**9)
    plans = [
        make_plan(
            load_config(None, ["train.propagation.mode=sampled"]),
            sizes.sizes_of_counts(10**6, items, interactions, {"image": 64}),
            4,
            2**40,
        )
        for items, interactions in counts
    ]
    small, large = (plan.trainings["train"].memory for plan in plans)
    assert large["graph"] == small["graph"] == 0
    assert large["batches"] < 2 * small["batches"]
    exact = plans[1].trainings["pretrain"].memory
    assert exact["graph"] > large["activations"]
