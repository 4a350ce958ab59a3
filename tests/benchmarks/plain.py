"""An epoch of MGCN as it stands in the paper, and one of this engine's, side by side.

    python -m tests.benchmarks.plain [--data-set tiktok] [--rounds 3] [--set train.x=y ...]

The plain one is what toolkits run: every step propagates and fuses all nodes with torch's sparse
products, compares all rows of the batch as they come, trains the features along, and updates every
parameter with ``torch.optim.Adam``. Same graphs, batches and settings, one thread, the rounds in
turn; CPU seconds of propagation, losses, gradients and updates, and the losses of the first step,
which must be the same. Drawing batches and validation are left out of both.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.benchmarks.exact import assemble
from tests.benchmarks.quality.__main__ import ROOT, ingest
from tests.benchmarks.quality.experiments import DATA_SETS
from tests.benchmarks.quality.trial import ONE_RANK


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=ROOT.parent / "shared" / "data", type=Path)
    parser.add_argument("--work", default=ROOT / "runs" / "quality", type=Path)
    parser.add_argument("--data-set", choices=DATA_SETS, default="tiktok")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    arguments = parser.parse_args()
    os.environ.update(ONE_RANK)
    import torch
    import torch.distributed as dist

    from egra_dist.tracking.noise import setup_logging
    from egra_dist.train.memory import keep_freed_memory

    setup_logging(0)
    keep_freed_memory()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{tempfile.mkdtemp()}/ranks", rank=0, world_size=1)
    ingest(arguments.data_set, arguments)
    parts = assemble(arguments, arguments.data_set, "mgcn", "bpr")
    plain = Plain(parts)
    batches = list(parts.propagation.epoch(0))
    print("loss of the first step: plain, engine")
    print(f"{float(plain.loss(batches[0])):.6f} {float(engine_loss(parts, batches[0])):.6f}")
    print("| round | plain, CPU s | engine, CPU s | times |\n|---|---|---|---|")
    for number in range(arguments.rounds):
        seconds = [timed(one, batches) for one in (plain.step, lambda b: engine_step(parts, b))]
        print(f"| {number} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[0] / seconds[1]:.2f} |")


def timed(step, batches):
    started = time.process_time()
    for batch in batches:
        step(batch)
    return time.process_time() - started


def engine_loss(parts, batch):
    return parts.model.losses(parts.propagation.rows(batch), batch.shares, 0).total


def engine_step(parts, batch):
    engine_loss(parts, batch).backward()
    parts.optimizers.step()


class Plain:
    """MGCN (Yu et al. 2023, equations 4 to 15) with the engine's first weights."""

    def __init__(self, parts):
        import torch

        from egra_dist.model.tables import ITEM, USER

        model, self._settings = parts.model, parts.settings
        branch = model.modality_branch
        self._names = branch.names
        self._layers = [
            {name: (layer.weight, layer.bias) for name, layer in layers.items()}
            for layers in (branch.project, branch.purify, branch.gate)
        ]
        query, _, out = branch.query
        self._query = (query.weight, query.bias, out.weight)
        graph = branch._graph
        self._graph = coo(model._behavior_graph)
        self._items = {name: coo(graph.item_graphs[name]) for name in self._names}
        self._user_rows = coo(graph.user_rows)
        tables = [parts.tables.local(table) for table in (USER, ITEM)]
        features = [graph.features[name].float() for name in self._names]
        shared = [*tables, *features, *self._query]
        shared += [part for layers in self._layers for pair in layers.values() for part in pair]
        copies = {id(part): part.detach().clone().requires_grad_() for part in shared}
        self._users, self._item_rows = (copies[id(part)] for part in tables)
        self._features = {n: copies[id(f)] for n, f in zip(self._names, features, strict=True)}
        self._query = [copies[id(part)] for part in self._query]
        self._layers = [
            {name: [copies[id(part)] for part in pair] for name, pair in layers.items()}
            for layers in self._layers
        ]
        self._optimizer = torch.optim.Adam(
            copies.values(), lr=self._settings.optimizer.learning_rate
        )

    def step(self, batch):
        self.loss(batch).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def loss(self, batch):
        from torch.nn import functional

        (share,) = batch.shares
        behavior, side = self._propagate()
        fused = behavior + side
        users, positives, negatives = (
            fused[part] for part in (share.users, share.positives, share.negatives)
        )
        size, settings = len(share), self._settings
        scores = [(users * items).sum(1) for items in (positives, negatives)]
        ranking = -functional.logsigmoid(scores[0] - scores[1]).mean()
        squares = sum((part**2).sum() for part in (users, positives, negatives)) / 2 / size
        temperature = settings.alignment.temperature
        aligned = sum(
            info_nce(side[part], behavior[part], temperature)
            for part in (share.users, share.positives)
        )
        total = ranking + settings.regularization * squares
        return total + settings.alignment.lambda_max * aligned

    def _propagate(self):
        import torch
        from torch.nn import functional

        project, purify, gate = self._layers
        layer = torch.cat([self._users, self._item_rows])
        layers = [layer]
        for _ in range(self._settings.model.num_layers):
            layer = torch.sparse.mm(self._graph, layer)
            layers.append(layer)
        behavior = torch.stack(layers, dim=1).mean(1)
        views = []
        for name in self._names:
            projected = functional.linear(self._features[name], *project[name])
            gates = torch.sigmoid(functional.linear(projected, *purify[name]))
            of_items = torch.sparse.mm(self._items[name], self._item_rows * gates)
            views.append(torch.cat([torch.sparse.mm(self._user_rows, of_items), of_items]))
        weight, bias, out = self._query
        hidden = [torch.tanh(functional.linear(view, weight, bias)) for view in views]
        attention = torch.softmax(torch.cat([rows @ out.T for rows in hidden], dim=1), dim=1)
        common = sum(attention[:, n, None] * view for n, view in enumerate(views))
        own = [
            torch.sigmoid(functional.linear(behavior, *gate[name])) * (view - common)
            for name, view in zip(self._names, views, strict=True)
        ]
        return behavior, (sum(own) + common) / (len(views) + 1)


def info_nce(anchors, candidates, temperature):
    """Of rows that belong together, duplicates as they come."""
    import torch
    from torch.nn import functional

    anchors, candidates = (functional.normalize(rows, dim=1) for rows in (anchors, candidates))
    of_pairs = torch.exp((anchors * candidates).sum(1) / temperature)
    of_all = torch.exp(anchors @ candidates.T / temperature).sum(1)
    return -torch.log(of_pairs / of_all).mean()


def coo(matrix):
    """The only rank's matrix as torch's own, in coordinates."""
    import torch

    rows = matrix._columns
    shape = (rows.num_rows, rows.num_columns)
    csr = torch.sparse_csr_tensor(rows.offsets.long(), rows.indices.long(), rows.values, shape)
    return csr.to_sparse_coo().coalesce()


if __name__ == "__main__":
    main()
