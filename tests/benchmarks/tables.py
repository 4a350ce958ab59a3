"""Looking rows up and updating them: ours, and TorchRec's fused lookups over FBGEMM's kernels.

    python -m tests.benchmarks.tables [--rows 1000000] [--batch 16000] [--ranks 1 2]

Row-wise Adagrad, d = 64, gloo, one thread for each rank. ``ours``: ``DirectTables.lookup`` and the
update of its rows. ``sequence``: TorchRec's ``EmbeddingCollection``; ``pooled``: its
``EmbeddingBagCollection`` with bags of one row, which over gloo needs batches of equal size. CPU
milliseconds of the first rank for one table and step, variants in turn.
"""

import argparse
import time
import warnings

import torch
import torch.distributed as dist

from tests.integration.ranks import run_on_ranks

DIM, ROUNDS, WARM_UP = 64, 20, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=16_000)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    print("| ranks | variant | lookup ms | gradient and update ms |\n|---|---|---|---|")
    for num_ranks in arguments.ranks:
        print(run_on_ranks(measure, num_ranks, arguments.rows, arguments.batch)[0])


def measure(num_rows, batch):
    """Rows of the table; the first rank's."""
    variants = {
        "ours": ours(num_rows),
        "pooled": fused(num_rows, is_pooled=True),
        "sequence": fused(num_rows, is_pooled=False),
    }
    seconds = {name: [0.0, 0.0] for name in variants}
    random = torch.Generator().manual_seed(dist.get_rank())
    for round_number in range(ROUNDS + WARM_UP):
        ids = torch.randperm(num_rows, generator=random)[:batch].sort()[0]
        for name, (lookup, update) in variants.items():
            times = [time.process_time()]
            rows = lookup(ids)
            times.append(time.process_time())
            rows.sum().backward()
            update()
            times.append(time.process_time())
            if round_number >= WARM_UP:
                seconds[name] = [
                    total + stop - start
                    for total, start, stop in zip(seconds[name], times, times[1:], strict=False)
                ]
    milliseconds = {
        name: " | ".join(f"{1e3 * s / ROUNDS:.1f}" for s in parts)
        for name, parts in seconds.items()
    }
    num_ranks = dist.get_world_size()
    return "\n".join(f"| {num_ranks} | {name} | {text} |" for name, text in milliseconds.items())


def ours(num_rows):
    from egra_dist.config import OptimizerSettings
    from egra_dist.model.tables import DirectTables
    from egra_dist.train.optimizers import Optimizers

    tables = DirectTables({"item": num_rows}, {"item": DIM}, torch.device("cpu"))
    settings = OptimizerSettings(tables="rowwise_adagrad")
    optimizers = Optimizers(tables.parameters(), [], settings, is_sparse=True)
    optimizers.materialize()
    return lambda ids: tables.lookup({"item": ids}), optimizers.step


def fused(num_rows, is_pooled):
    """TorchRec updates in the backward pass: there is nothing left to do after it."""
    warnings.simplefilter("ignore")
    import torchrec
    from torchrec.distributed import DistributedModelParallel
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
    from torchrec.distributed.types import ShardingPlan
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    set_gradient_division(False)
    table = {"name": "item", "embedding_dim": DIM, "num_embeddings": num_rows}
    meta = torch.device("meta")
    if is_pooled:
        config = torchrec.EmbeddingBagConfig(**table, feature_names=["item"])
        module = torchrec.EmbeddingBagCollection(tables=[config], device=meta)
        sharder = EmbeddingBagCollectionSharder()
    else:
        config = torchrec.EmbeddingConfig(**table, feature_names=["item"])
        module = torchrec.EmbeddingCollection(tables=[config], device=meta)
        sharder = EmbeddingCollectionSharder()
    apply_optimizer_in_backward(RowWiseAdagrad, module.parameters(), {"lr": 0.1, "eps": 1e-8})
    plan = construct_module_sharding_plan(
        module,
        per_param_sharding={"item": row_wise()},
        sharder=sharder,
        local_size=dist.get_world_size(),
        world_size=dist.get_world_size(),
        device_type="cpu",
    )
    model = DistributedModelParallel(
        module,
        device=torch.device("cpu"),
        plan=ShardingPlan({"": plan}),
        sharders=[sharder],
        init_data_parallel=False,
    )

    def lookup(ids):
        lengths = torch.ones_like(ids) if is_pooled else torch.tensor([len(ids)])
        jagged = torchrec.KeyedJaggedTensor(keys=["item"], values=ids, lengths=lengths)
        found = model(jagged).wait()["item"]
        return found if is_pooled else found.values()

    return lookup, lambda: None


if __name__ == "__main__":
    main()
