"""Delivers later what could not be delivered at the time."""

from pathlib import Path

from egra_dist.errors import UserError
from egra_dist.tracking.client import default_uri, reason
from egra_dist.tracking.ledger import LEDGER, Ledger
from egra_dist.tracking.mirror import Mirror, lock_folder


def sync(run_folder: Path, uri: str | None = None) -> None:
    """Brings MLflow in line with what a pipeline run left behind, metrics included.

    A run that was killed without a word is ended as ``KILLED``.

    Args:
        run_folder: Folder of a pipeline run that is not running now.
        uri: Another tracking URI than the run's own, e.g. the same server's new address.

    Raises:
        UserError: If nothing was recorded there, it is running, files that wait there are links
            to elsewhere, or MLflow cannot be reached.
    """
    ledger = Ledger.read(run_folder)
    if ledger is None:
        raise UserError(f"{run_folder}: not the folder of a recorded run (it has no {LEDGER})")
    uri = uri or ledger.uri or default_uri(run_folder)
    with lock_folder(run_folder):
        for entry in ledger.runs.values():
            entry.end("KILLED")
        mirror = Mirror(run_folder, ledger, uri)
        try:
            mirror.push()
        except UserError:
            raise
        except Exception as error:
            # MLflow, database drivers and the network each raise their own kinds.
            raise UserError(f"{run_folder}: MLflow at {uri}: {reason(error)}") from error
        if not mirror.deliver_metrics():
            raise UserError(f"{run_folder}: MLflow at {uri} did not take all metrics; try again")
