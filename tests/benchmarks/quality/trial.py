"""One training in one process: settings in, figures out.

    python -m tests.benchmarks.quality.trial SPEC.json

Uses the engine's own parts on a single rank, without Ray: figures do not depend on the number of
workers. What trials share (graphs, pretrained vectors) is kept under the work folder.
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ONE_RANK = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}


def main(path):
    spec = SimpleNamespace(**json.loads(Path(path).read_text()))
    os.environ.update(ONE_RANK)
    import torch

    torch.set_num_threads(1)
    figures = shallow(spec) if spec.model in ("popularity", "itemknn", "ease") else trained(spec)
    print(json.dumps(figures))


def shallow(spec):
    """Popularity, ItemKNN, EASE: fitted, not trained."""
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import EvaluationSettings
    from egra_dist.evaluate.protocol import evaluate_scores
    from egra_dist.evaluate.shallow import Ease, ItemKnn
    from egra_dist.graph.behavior import training_matrix

    catalog, started = Catalog.open(Path(spec.catalog)), time.process_time()
    training = training_matrix(catalog)
    if spec.model == "popularity":
        score_users = popularity(training)
    else:
        kind = {"itemknn": ItemKnn, "ease": Ease}[spec.model]
        score_users = kind.fit(training, **spec.settings).score_users
    return {
        **{
            name: dataclasses.asdict(evaluate_scores(split, score_users, EvaluationSettings()))
            for name, split in splits(spec, catalog, training)
        },
        "cpu_seconds": time.process_time() - started,
    }


def popularity(training):
    import numpy as np
    import torch

    counts = np.bincount(training.indices, minlength=training.num_columns).astype(np.float32)
    return lambda users: torch.from_numpy(counts).expand(len(users), -1).clone()


def splits(spec, catalog, training):
    """Validation alone for trials of a search: nothing is chosen on test."""
    from egra_dist.evaluate.split import Split

    names = ("valid",) if spec.is_search else ("valid", "test")
    return [(name, Split.from_catalog(catalog, name, training)) for name in names]


def trained(spec):
    import torch.distributed as dist

    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import load_config
    from egra_dist.tracking.noise import setup_logging

    setup_logging(0)
    settings = {**spec.settings, **faster_here(spec.settings)}
    rendezvous = f"file://{tempfile.mkdtemp()}/ranks"
    dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
    config = load_config(None, [f"{key}={value}" for key, value in settings.items()])
    config = config.model_copy(update={"seed": spec.seed})
    stages = Stages(Path(spec.work), Catalog.open(Path(spec.catalog)), config)
    users, items, facts = stages.trained()
    from egra_dist.evaluate.protocol import evaluate_vectors

    if config.history.is_used:
        users, facts["history"] = stages.with_histories(users, items)
    figures = {
        name: dataclasses.asdict(evaluate_vectors(split, users, items, config.evaluation))
        for name, split in splits(spec, stages.catalog, stages.training)
    }
    return {**figures, **facts, "precision": config.train.precision}


def faster_here(settings):
    """Products in float32 where the processor takes longer for rounded ones; rows say which."""
    from egra_dist.cluster.processor import multiplies_bfloat16_fast

    rounded = [key for key, value in settings.items() if value == "bfloat16"]
    return {} if multiplies_bfloat16_fast() else dict.fromkeys(rounded, "float32")


class Stages:
    """The pipeline's stages on one rank; see ``egra_dist.pipeline``."""

    def __init__(self, work, catalog, config):
        from egra_dist.graph.csr import Csr

        self._work, self._config = work, config
        self.catalog = self._preprocessed(catalog)
        self._graphs = self._build(
            "graphs",
            {"k": config.feature_graph.k},
            lambda folder: self._write_graphs(folder),
        )
        self.training = Csr.load(self._graphs.folder / "training")

    def trained(self):
        """Vectors of the last stage, and how the training went; kept for the next call."""
        import numpy as np

        def make(folder):
            users, items, facts = self.train("train")
            np.save(folder / "users.npy", users.numpy())
            np.save(folder / "items.npy", items.numpy())
            return facts

        later = {"tracking", "cluster", "evaluation", "baselines", "history"}
        recipe = self._config.model_dump(mode="json", exclude=later)
        done = self._build("train", recipe, make)
        names = ("cpu_seconds", "epochs", "best_epoch")
        facts = {name: done.manifest.counts[name] for name in names}
        return np.load(done.folder / "users.npy"), np.load(done.folder / "items.npy"), facts

    def with_histories(self, users, items):
        """Users' vectors with what is best of their histories, and what that is."""
        import numpy as np
        import torch

        from egra_dist.config import MAIN
        from egra_dist.train.history import Histories
        from egra_dist.train.propagation import Vectors
        from egra_dist.train.setup import partition_of

        task = self._task(MAIN, self._config.train, None)
        np.save(task.folder / "item_vectors.npy", items)
        vectors = Vectors(torch.from_numpy(users), torch.from_numpy(items), None)
        nodes = partition_of(self.catalog)
        users, tried = Histories(task, self.catalog, nodes, vectors).best()
        return users, dataclasses.asdict(tried[0])

    def train(self, stage):
        """Final vectors of users and items, and how the training went."""
        from egra_dist.train.loop import train

        started = time.process_time()
        parts = self.assemble(stage)
        state = train(parts)
        facts = {
            "cpu_seconds": time.process_time() - started,
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
        }
        vectors = parts.propagation.infer()
        return vectors.users, vectors.items, facts

    def assemble(self, stage):
        """The parts of a training; what comes before it has been made."""
        settings = getattr(self._config, stage)
        uses_item_graph = stage == "train" and settings.model.uses_item_graph
        return self._assemble(stage, settings, self._merged() if uses_item_graph else None)

    def _preprocessed(self, catalog):
        from egra_dist.catalog.preprocess import write_features

        self.catalog, settings = catalog, self._config.features
        if not settings.changes_features:
            return catalog
        done = self._build(
            "features",
            {**settings.model_dump(mode="json"), "seed": self._config.seed},
            lambda folder: write_features(catalog, settings, self._config.seed, folder),
        )
        return dataclasses.replace(catalog, features_folder=done.folder)

    def _write_graphs(self, folder):
        from egra_dist.graph.item import write_graphs

        return write_graphs(
            self.catalog, self.catalog.modalities, self._config.feature_graph.k, folder
        )

    def _pretrained(self):
        import numpy as np

        def make(folder):
            _, items, facts = self.train("pretrain")
            np.save(folder / "item_vectors.npy", items.numpy())
            return facts

        recipe = {**self._config.pretrain.model_dump(mode="json"), "seed": self._config.seed}
        return self._build("pretrain", recipe, make)

    def _merged(self):
        from egra_dist.graph.item import write_merged
        from egra_dist.graph.knn import KnnSettings
        from egra_dist.graph.neighbors import ItemNeighbors, Search

        settings = self._config.item_graph
        if settings.source == "none":
            return None
        pretrained = self._pretrained().folder if settings.is_pretrained else None
        source = ItemNeighbors(self.catalog, settings, KnnSettings(k=settings.k), pretrained)
        folder = Path(tempfile.mkdtemp())
        source.find(Search(folder / "work")).save(folder / "knn")
        write_merged(self._graphs.folder, folder / "knn", settings, folder)
        return folder

    def _assemble(self, stage, settings, merged):
        import torch

        from egra_dist.train.setup import assemble

        return assemble(self._task(stage, settings, merged), torch.device("cpu"))

    def _task(self, stage, settings, merged):
        from egra_dist.train.task import GraphPaths, Task

        seen = settings.model.seen_of(self.catalog.modalities)
        return Task(
            stage=stage,
            catalog=self.catalog.path,
            graphs=GraphPaths.of(self._graphs.folder, seen, merged),
            settings=settings,
            evaluation=self._config.evaluation,
            folder=Path(tempfile.mkdtemp()),
            seed=self._config.seed,
            features=self.catalog.features_folder,
            history=self._config.history,
        )

    def _build(self, kind, settings, make):
        """Shared by the trials of a data set; one process at a time makes it."""
        from egra_dist.artifact import build
        from egra_dist.manifest import digest_of

        inputs = {"catalog": self.catalog.digest, "features": str(self.catalog.features_folder)}
        folder = self._work / f"{kind}-{digest_of(kind, settings, inputs)}"
        return build(folder, kind, settings, inputs, make)


if __name__ == "__main__":
    main(sys.argv[1])
