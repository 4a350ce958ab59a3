"""Trainings on small catalogues, for benchmarks that need no more of a graph than its size."""

import numpy as np

NUM_NEIGHBORS = 10


def make_task(folder, num_items, settings):
    from egra_dist.catalog.synth import SynthSettings, synthesize

    sizes = {"num_items": num_items, "num_users": num_items // 2, "num_interactions": 5 * num_items}
    return task_on(synthesize(SynthSettings(**sizes), folder / "catalog"), folder, settings)


def task_on(catalog, folder, settings):
    """A training on a catalogue, with random item graphs."""
    from egra_dist.config import load_config
    from egra_dist.graph.behavior import merge, normalize, training_matrix
    from egra_dist.train.task import GraphPaths, Task

    num_items = catalog.num_items
    config = load_config(None, settings)
    random = np.random.default_rng(0)
    training = training_matrix(catalog)
    training.save(folder / "training")
    merge(training, None, 0).save(folder / "plain")
    merge(training, random_neighbors(num_items, random), 0.5).save(folder / "behavior")
    features = {name: folder / name for name in catalog.modalities}
    for path in features.values():
        normalize(random_neighbors(num_items, random)).save(path)
    return Task(
        stage="train",
        catalog=catalog.path,
        graphs=GraphPaths(folder / "training", folder / "plain", folder / "behavior", features),
        settings=config.train,
        evaluation=config.evaluation,
        folder=folder / "training_run",
        seed=0,
    )


def random_neighbors(num_items, random):
    from egra_dist.graph.csr import Csr

    columns = np.sort(random.integers(num_items, size=(num_items, NUM_NEIGHBORS), dtype=np.int32))
    indptr = np.arange(num_items + 1, dtype=np.int64) * NUM_NEIGHBORS
    ones = np.ones(columns.size, dtype=np.float32)
    return Csr(indptr, columns.ravel(), ones, num_items)
