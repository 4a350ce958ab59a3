"""Brings a spool to MLflow, and takes its absence calmly."""

import logging
from typing import TYPE_CHECKING

from egra_dist.tracking.client import open_client, reason
from egra_dist.tracking.ledger import find_run
from egra_dist.tracking.names import clean_value
from egra_dist.tracking.spool import Point, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

MAX_POINTS_PER_BATCH = 1000


class Delivery:
    """Delivers one spool. A failure is said once and leaves what is pending in the spool.

    Args:
        uri: Tracking URI of MLflow.
        spool: What is to be delivered.
        after_loss: Whether an earlier spool of this run may have been lost with its machine: what
            MLflow has already is then left out.
    """

    def __init__(self, uri: str, spool: Spool, after_loss: bool = False) -> None:
        self._uri = uri
        self._spool = spool
        self._after_loss = after_loss
        self._client: MlflowClient | None = None
        self._steps_there: dict[str, int] | None = None
        self._away = False

    def deliver(self) -> bool:
        """Delivers all that is pending.

        Returns:
            Whether nothing is left.
        """
        try:
            with self._spool.delivering():
                return self._deliver()
        except Exception as error:
            # Whatever MLflow, a database driver or the network raises: training goes on.
            if not self._away:
                self._away = True
                logger.warning("MLflow is away, metrics wait on disk: %s", reason(error))
            return False

    def _deliver(self) -> bool:
        entry = find_run(self._spool.folder, self._spool.key)
        run_id = entry.run_id if entry else self._spool.key
        if run_id is None:
            return self._spool.is_delivered()  # The driver could not create the run yet.
        while True:
            batch = self._spool.pending(MAX_POINTS_PER_BATCH)
            if batch.start == batch.end:
                break
            client = self._client = self._client or open_client(self._uri)
            _log_batches(client, run_id, self._without_replays(client, run_id, batch.points))
            self._spool.mark_delivered(batch.end)
        if self._away:
            self._away = False
            logger.info("MLflow is back, all metrics are delivered")
        return True

    def _without_replays(
        self, client: "MlflowClient", run_id: str, points: list[Point]
    ) -> list[Point]:
        if not self._after_loss:
            return points
        if self._steps_there is None:
            self._steps_there = _last_steps(client, run_id)
        there = self._steps_there
        return [point for point in points if point.step > there.get(point.name, -1)]


def _last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    names = client.get_run(run_id).data.metrics
    return {
        name: max(metric.step for metric in client.get_metric_history(run_id, name))
        for name in names
    }


def _log_batches(client: "MlflowClient", run_id: str, points: list[Point]) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(p.name, clean_value(p.value), p.time, p.step) for p in points]
    for start in range(0, len(metrics), MAX_POINTS_PER_BATCH):
        batch = metrics[start : start + MAX_POINTS_PER_BATCH]
        client.log_batch(run_id, metrics=batch, synchronous=True)
