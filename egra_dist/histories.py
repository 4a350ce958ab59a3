"""After a training: users' vectors with their latest items in them, a result of its own."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from egra_dist.artifact import Artifact
from egra_dist.train.launch import launch
from egra_dist.train.task import HISTORY, Task
from egra_dist.train.worker import history_worker
from egra_dist.workspace import Workspace

_log = logging.getLogger(__name__)


def add_history(workspace: Workspace, kind: str, task: Task, trained: Artifact) -> Artifact:
    """Leaves users' vectors with the best share of their histories, and their figures.

    Args:
        workspace: The run.
        kind: What the artifact is called.
        task: The training; its settings of histories say what is tried.
        trained: What it has left.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        workspace.connect()
        launch(history_worker, replace(task, stage=kind, users=folder), workspace.config.cluster)
        best: Mapping[str, Any] = json.loads((folder / HISTORY).read_text())[0]
        _log.info(
            "%s: share %g, decay %g: %s %.4f on validation",
            kind, best["share"], best["decay"], task.settings.metric, best["score"],
        )  # fmt: skip
        return best

    recipe = {
        **task.history.model_dump(mode="json"),
        "metric": task.settings.metric,
        "num_users": task.evaluation.num_users,
    }
    return workspace.build(kind, recipe, {task.stage: trained}, workspace.recorded(make, "history"))
