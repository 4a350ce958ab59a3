"""Sends the ids of the next batches to the owners of their rows, while a step computes."""

from collections.abc import Iterator

import torch

from egra_dist.model.tables import FusedTables
from egra_dist.train.propagation import SampledBatch


def register_batches() -> None:
    """Tells TorchRec's pipelines that they may move a :class:`SampledBatch`."""
    from torchrec.streamable import Pipelineable

    Pipelineable.register(SampledBatch)


def distributed_ahead(
    batches: Iterator[SampledBatch], tables: FusedTables, device: torch.device
) -> Iterator[SampledBatch]:
    """Yields batches in their order, on the device, whose ids are where their rows are.

    What ``TrainPipelineSparseDist.progress`` does before and after a step, so that the step itself
    stays where the training loop has it. While a batch is trained on, the ids of the next one are
    exchanged and the one after is copied to the device, each on a CUDA stream of its own.

    Args:
        batches: As they were drawn.
        tables: Whose lookup of each batch, once and in this order, finds the ids distributed. Until
            the last batch is taken, or the iterator is closed, they look nothing else up.
        device: Where they are trained on.
    """
    from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

    register_batches()
    pipeline = TrainPipelineSparseDist(tables.module, tables.optimizer, device)
    try:
        while True:
            pipeline.fill_pipeline(batches)
            if not pipeline.batches:
                return
            pipeline._wait_for_batch()
            if len(pipeline.batches) > 1:
                pipeline.start_sparse_data_dist(pipeline.batches[1], pipeline.contexts[1])
            pipeline.enqueue_batch(batches)
            yield pipeline.batches[0]
            if len(pipeline.batches) > 1:
                pipeline.wait_sparse_data_dist(pipeline.contexts[1])
            pipeline.dequeue_batch()
    finally:
        pipeline.detach()
