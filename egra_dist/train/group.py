"""Our worker groups, beside what Ray Train's own do, hear SIGTERM and know a user's mistake."""

import threading
from typing import Any

from ray.train import UserCallback
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
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
