"""Lets one thread talk to MLflow while the driver works."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor, wait

from egra_dist.tracking.client import reason
from egra_dist.tracking.mirror import Mirror

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0


class Background:
    """Brings MLflow in line in a thread, one change after the other.

    While MLflow is away it is not asked more often than twice a minute: each time a dead server
    may take seconds to fail. That it is away is said once.

    Args:
        mirror: What brings it in line.
        uri: Tracking URI, to name it.
    """

    def __init__(self, mirror: Mirror, uri: str) -> None:
        self._mirror = mirror
        self._uri = uri
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._away_since: float | None = None
        self._warned = False

    def submit(self) -> None:
        """Brings MLflow in line, soon."""
        self._pushed = self._thread.submit(self._push)
        self._delivered = self._thread.submit(self._deliver)

    def wait_for_runs(self, timeout: float) -> None:
        """Waits until MLflow knows all runs, is found to be away, or the time is over."""
        wait([self._pushed], timeout)

    def finish(self, timeout: float) -> bool:
        """Tries once more, also when MLflow is thought to be away, and stops.

        Returns:
            Whether MLflow has everything.
        """
        self._away_since = None
        self.submit()
        in_time, _ = wait([self._delivered], timeout)
        self._thread.shutdown(wait=False, cancel_futures=True)
        return bool(in_time) and self._delivered.result()

    def _push(self) -> None:
        if self._away_since and time.monotonic() - self._away_since < _RETRY_SECONDS:
            return
        try:
            self._mirror.push()
            self._away_since = None
        except Exception as error:
            # Whatever MLflow, a database driver or the network raises: the pipeline goes on.
            self._away_since = time.monotonic()
            if not self._warned:
                self._warned = True
                logger.warning("MLflow is away at %s: %s", self._uri, reason(error))

    def _deliver(self) -> bool:
        return self._away_since is None and self._mirror.deliver_metrics()
