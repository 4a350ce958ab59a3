"""What checkpoints hold, how long they last, and what they do when they cannot be written."""

import json
import pickle
import random
import resource
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import run_on_ranks
from test_models_ranks import task_of
from test_sampled_ranks import FEW, SAMPLED
from test_training_ranks import CPU, ListRecorder, with_folder

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.errors import UserError
from egra_dist.storage import Storage
from egra_dist.train import agreement
from egra_dist.train.agreement import Ending
from egra_dist.train.loop import EndedError, train
from egra_dist.train.setup import assemble
from egra_dist.train.task import Survival

STOPPED_AFTER = 9
STEPS_PER_EPOCH = 4
TOO_LARGE = 2000


class Board:
    """Hears warnings; tells to stop from a step on."""

    def __init__(self, stop_after=None):
        self.warnings = []
        self.stop_after = stop_after
        self.done = 0

    def update(self, done, total=None, **fields):
        self.done = done + 1

    def warn(self, message):
        self.warnings.append(message)

    def is_stopped(self):
        return self.stop_after is not None and self.done >= self.stop_after


class DiskRecorder(ListRecorder):
    """Lets no file grow large from one step to another."""

    def __init__(self, first, last):
        super().__init__()
        self._first, self._last = first, last

    def log(self, step, metrics):
        super().log(step, metrics)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        is_full = self._first <= step < self._last
        resource.setrlimit(resource.RLIMIT_FSIZE, (TOO_LARGE if is_full else hard, hard))


def train_quietly(task, board=None, recorder=None):
    """Trains; returns the vectors, or what the training ended with.

    The libraries' own generators start differently each time: nothing may depend on them.
    """
    parts = assemble(replace(task, progress=board), CPU, recorder)
    random.seed()
    np.random.seed()
    torch.seed()
    try:
        train(parts)
    except (EndedError, UserError) as error:
        return error
    finally:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2
        )
    vectors = parts.propagation.infer()
    return torch.cat([vectors.users, vectors.items]).numpy()


@contextmanager
def removing_slowly(seen):
    """Notes whether a folder was there when a rank began to write its checkpoint into it."""
    remove, save, found = shutil.rmtree, dcp.save, []

    def slow_remove(path, **options):
        time.sleep(0.2 if Path(path).exists() else 0)
        remove(path, **options)

    def noting_save(state, *, checkpoint_id, **options):
        found.append(any(Path(checkpoint_id).glob("*")))
        return save(state, checkpoint_id=checkpoint_id, **options)

    with (
        mock.patch.object(shutil, "rmtree", slow_remove),
        mock.patch.object(dcp, "save", noting_save),
    ):
        yield
    seen["found"] = found


def committed(folder):
    return json.loads((folder / "checkpoints" / "state.json").read_text())


def checkpoints_in(folder):
    return {path.name for path in (folder / "checkpoints").glob("step-*")}


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(state):
    return sorted(entry["name"] for entry in state["kept"])


def resumed_after(task, stop_after, damaged):
    """Interrupts a training, damages some of its checkpoints, and goes on; a commit, and the end.

    That is copied to a storage, too: what it holds in the end.
    """
    task = replace(task, storage=Storage(f"{task.folder}/copied"))
    train_quietly(task, Board(stop_after))
    torch.distributed.barrier()
    state = committed(task.folder)
    if torch.distributed.get_rank() == 0:
        for name in damaged(state):
            (task.folder / "checkpoints" / name / "__1_0.distcp").write_bytes(b"damaged")
    torch.distributed.barrier()
    vectors = train_quietly(task, Board())
    local, copied = files_of(task.folder / "checkpoints"), files_of(task.folder / "copied")
    return state, damaged(state), vectors, local == copied


def work(task, exact, folder):
    """Everything on the same two ranks; what the tests below look at."""
    seen = {}
    agreement._SECONDS_BETWEEN = 0  # the steps are short: ask after each
    task = replace(task, survival=Survival(checkpoint_steps=1, checkpoints_kept=3))
    copied = replace(with_folder(task, folder / "whole"), storage=Storage(f"{folder}/copied"))
    seen["whole"] = train_quietly(copied)
    seen["local"], seen["copied"] = (
        files_of(folder / "whole/checkpoints"),
        files_of(folder / "copied"),
    )

    part = with_folder(task, folder / "part")
    board = Board(stop_after=STOPPED_AFTER)
    seen["ended"] = train_quietly(part, board)
    seen["state"], seen["kept"] = committed(part.folder), checkpoints_in(part.folder)
    torch.distributed.barrier()
    newest = part.folder / "checkpoints" / seen["state"]["kept"][-1]["name"]
    if torch.distributed.get_rank() == 0:
        (newest / "__1_0.distcp").write_bytes(b"damaged")
    torch.distributed.barrier()
    board = Board()
    with removing_slowly(seen):
        seen["resumed"] = train_quietly(part, board)
    seen["damage"] = board.warnings
    for name, other in {
        "graph": replace(part, inputs={"merge": "another"}),
        "seed": replace(part, seed=part.seed + 1),
        "shape": replace(
            part,
            settings=part.settings.model_copy(
                update={"model": part.settings.model.model_copy(update={"dim": 8})}
            ),
        ),
    }.items():
        seen[name] = train_quietly(other)

    seen["without the best"] = resumed_after(
        with_folder(task, folder / "bestless"),
        STEPS_PER_EPOCH + 1,
        lambda state: [e for e in names(state) if e >= state["best"]["name"]],
    )
    seen["with the best alone"] = resumed_after(
        with_folder(task, folder / "alone"),
        STOPPED_AFTER,
        lambda state: [e for e in names(state) if e != state["best"]["name"]],
    )

    full = with_folder(task, folder / "full")
    board = Board()
    seen["full"] = train_quietly(full, board, DiskRecorder(5, 7))
    seen["full_warnings"], seen["full_state"] = board.warnings, committed(full.folder)
    lost = replace(exact, folder=folder / "lost", survival=task.survival)
    seen["lost"] = train_quietly(lost, Board(), DiskRecorder(2, 100))
    seen["lost_state"] = committed(lost.folder)
    return seen


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    shelves = synthesize(settings, folder / "catalog")
    size = f"train.batch_size={(shelves.num_interactions('train') - 1) // 3}"
    options = (*FEW, size, "train.max_epochs=3", "train.evaluate_every=1")
    tasks = [task_of("egra", shelves, folder, *options, *mode) for mode in ([SAMPLED], [])]
    return run_on_ranks(work, 2, *tasks, folder)


def test_told_to_stop_all_ranks_save_and_leave(ranks):
    for seen in ranks:
        assert isinstance(seen["ended"], EndedError)
        assert seen["ended"].ending == Ending.STOPPED
        assert seen["state"]["training"]["step"] == STOPPED_AFTER
        assert not seen["state"]["training"]["is_finished"]


def test_the_last_ones_and_the_best_are_kept(ranks):
    state, kept = ranks[0]["state"], ranks[0]["kept"]
    assert len(state["kept"]) == 3
    assert kept == {entry["name"] for entry in [*state["kept"], state["best"]]}


def test_storage_has_what_the_folder_has(ranks):
    assert ranks[0]["copied"] == ranks[0]["local"]
    assert len(ranks[0]["local"]) >= 3 * 3 + 1  # of each checkpoint two shards and a list


def test_resumed_training_is_bit_for_bit_the_undisturbed_one(ranks):
    """From the checkpoint before the newest, which is damaged; no generator has a state."""
    for seen in ranks:
        assert np.array_equal(seen["resumed"], seen["whole"])
    (warning,) = ranks[0]["damage"]
    assert "cannot be loaded" in warning
    assert ranks[1]["damage"] == []


@pytest.mark.parametrize("which", ["without the best", "with the best alone"])
def test_a_damaged_best_state_is_made_again_and_a_good_one_is_gone_on_from(ranks, which):
    for seen in ranks:
        state, damaged, vectors, is_copied = seen[which]
        best = state["best"]["name"]
        assert len(damaged) >= 2
        assert (best in damaged) == (which == "without the best")
        assert np.array_equal(vectors, seen["whole"])
        assert is_copied


def test_what_a_dead_process_left_is_gone_before_any_rank_writes(ranks):
    """Else a rank may find that the folder exists, and then that it does not."""
    for seen in ranks:
        assert seen["found"]
        assert not any(seen["found"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("graph", "merge is absent there, 'another' here"),
        ("seed", "seed is '3' there, '4' here"),
        ("shape", "there, ["),
    ],
)
def test_checkpoints_of_another_training_are_refused(ranks, other, words):
    for seen in ranks:
        assert isinstance(seen[other], UserError)
        assert words in str(seen[other])


def test_full_disk_costs_a_checkpoint_and_no_more(ranks):
    for seen in ranks:
        assert np.array_equal(seen["full"], seen["whole"])
        assert seen["full_state"]["training"]["is_finished"]
    warnings = ranks[0]["full_warnings"]
    assert warnings
    assert all("could not be written" in warning for warning in warnings)


def test_best_state_that_cannot_be_written_ends_the_training(ranks):
    """And leaves the checkpoints before."""
    for seen in ranks:
        assert isinstance(seen["lost"], UserError)
        assert "the same command goes on" in str(seen["lost"])
        assert 0 < seen["lost_state"]["training"]["step"] < STEPS_PER_EPOCH


class Hostile:
    def __reduce__(self):
        return (pickle.loads, (b"",))


def test_metadata_that_would_run_code_are_refused(tmp_path):
    from egra_dist.train.dcp_reader import DamagedError, SafeReader

    for content in (pickle.dumps(Hostile()), pickle.dumps({"a": 1}), b"", b"\x80\x04."):
        (tmp_path / ".metadata").write_bytes(content)
        with pytest.raises(DamagedError, match="not readable"):
            SafeReader(tmp_path).read_metadata()
