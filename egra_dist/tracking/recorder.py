"""Records metrics without ever making the training wait for MLflow."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from egra_dist.tracking.delivery import Delivery
from egra_dist.tracking.ledger import find_run
from egra_dist.tracking.names import clean_name
from egra_dist.tracking.spool import Spool, SpoolWriter
from egra_dist.tracking.system import SystemSampler

logger = logging.getLogger(__name__)

_LONGEST_BACK_OFF_SECONDS = 60.0


class MetricRecorder:
    """Writes metrics to a local spool at once, and to MLflow from a background thread.

    While MLflow is away the thread keeps trying, ever more slowly. What could not be delivered
    until :meth:`close` stays in the spool, for the next recorder of this run or for
    ``egra-dist track sync RUN``. Steps already recorded are skipped, name by name: a training that
    was restarted may log its last steps again.

    One process records a run (rank 0 of the workers). Non-finite values arrive as NaN.

    Args:
        uri: Tracking URI of MLflow.
        run_id: The run to record to, as the driver's ``Experiment`` calls it.
        spool: Folder of the spools, ``RUN/spool``; on storage that outlives the process.
        interval_seconds: Time between deliveries.
        system_seconds: Time between samples of ``system/...``; None: no samples.
    """

    def __init__(
        self,
        uri: str,
        run_id: str,
        spool: Path,
        interval_seconds: float = 2.0,
        system_seconds: float | None = 10.0,
    ) -> None:
        entry = find_run(spool, run_id)
        self._spool = Spool(spool, entry.key if entry else run_id)
        self._writer = SpoolWriter(self._spool)
        self._delivery = Delivery(uri, self._spool, after_loss=not self._writer.last_steps)
        self._interval = interval_seconds
        self._system_seconds = system_seconds
        self._warned = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metric-recorder", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at a step that is higher than the last one of each name.

        Args:
            step: Global step, not below 0.
            metrics: Values by name; names are made acceptable to MLflow, see
                :func:`~egra_dist.tracking.names.clean_name`.
        """
        values = {clean_name(name): float(value) for name, value in metrics.items()}
        try:
            self._writer.append(step, values)
        except (OSError, ValueError) as error:
            if not self._warned:
                self._warned = True
                logger.warning("metrics are being lost: %s: %s", self._spool.path, error)

    def close(self, timeout: float = 10.0) -> bool:
        """Delivers what can be delivered within ``timeout`` seconds.

        Returns:
            Whether everything has arrived; the rest stays in the spool.
        """
        self._closing.set()
        self._thread.join(timeout)
        arrived = self._spool.is_delivered()
        self._writer.close()
        if not arrived:
            logger.warning(
                "not all metrics have reached MLflow; the driver tries again at its end, else: "
                "egra-dist track sync %s",
                self._spool.folder.parent,
            )
        return arrived

    def _run(self) -> None:
        sampler = SystemSampler() if self._system_seconds else None
        next_sample = time.monotonic() + (self._system_seconds or 0)
        next_delivery = 0.0
        failures = 0
        while not self._closing.wait(self._interval):
            now = time.monotonic()
            if sampler and self._system_seconds and now >= next_sample:
                next_sample = now + self._system_seconds
                self._sample(sampler)
            if now >= next_delivery:
                failures = 0 if self._delivery.deliver() else failures + 1
                pause = self._interval * 2**failures if failures else 0.0
                next_delivery = time.monotonic() + min(pause, _LONGEST_BACK_OFF_SECONDS)
        self._delivery.deliver()

    def _sample(self, sampler: SystemSampler) -> None:
        figures = sampler.sample()
        last = max(self._writer.last_steps.get(name, -1) for name in figures)
        self.log(last + 1, figures)
