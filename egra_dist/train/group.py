"""Our worker groups: what Ray Train does beside its own for us, and what it need not start."""

import threading
from typing import Any

from ray._private.worker import get_dashboard_url
from ray.train import UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import get_train_context

from egra_dist.errors import UserError
from egra_dist.train.agreement import SIGTERM


class _ListeningBackend(_TorchBackend):
    def on_training_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Has the main thread of every worker listen; the training runs in another."""
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(_listen)


class ListeningTorchConfig(TorchConfig):
    """Process groups of workers that save before they end when they are sent SIGTERM."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """See Ray Train."""
        return _ListeningBackend


class Trainer(TorchTrainer):
    """Ray Train without the processes that a training of ours has no use for.

    Nobody asks for shards of Ray Data. And what frees the workers' place when the controller dies
    asks the dashboard for it; a local session has none, and its place goes with it: there each
    training would end with ten seconds of waiting for an answer.
    """

    def _create_default_callbacks(self) -> list[Any]:
        useless = [DatasetsCallback]
        if not get_dashboard_url():
            useless.append(PlacementGroupCleanerCallback)
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, tuple(useless))]


class NoSecondTry(UserCallback):
    """Ends a run in which a worker found the user's input wrong: it would find it again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the user's mistake in the controller, which then does not try again."""
        for _, error in sorted(worker_exceptions.items()):
            if isinstance(error, UserError):
                raise error


def node_is_leaving() -> bool:
    """Whether Ray was told that a node of this group will be taken away; in a worker alone."""
    return get_train_context().preemption_context.preemption_info is not None


def _listen() -> None:
    assert threading.current_thread() is threading.main_thread()
    SIGTERM.listen()
