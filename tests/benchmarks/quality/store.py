"""What has been measured: one line of JSON per trial, appended as it ends."""

import fcntl
import json
from dataclasses import asdict


def load(path):
    """Rows by the digest of their trial."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["digest"]: row for row in rows}


def append(path, trial, figures):
    """Adds a row in one piece, whatever else is appending."""
    row = {"digest": trial.digest, **asdict(trial), **figures}
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row, sort_keys=True) + "\n")
