import time

import pytest
import ray

from egra_dist.cluster import progress
from egra_dist.cluster.progress import Progress, ProgressBoard, follow


class FakeBoard(ProgressBoard):
    """A board without its actor: answers with what it is given, or raises it."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.num_asked = 0

    def latest(self):
        self.num_asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Stage:
    total = 7

    def __init__(self):
        self.seen = []

    def update(self, done, **fields):
        self.seen.append((done, fields))


class Actor:
    """Takes what is sent to it."""

    def __init__(self):
        self.sent = []
        self.update = self

    def remote(self, sent):
        self.sent.append(sent)


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_stage_follows_while_the_work_runs():
    stage = Stage()
    board = FakeBoard(None, Progress(1), Progress(2, 40, {"loss": 0.5}))
    with follow(board, stage):
        wait_for(lambda: (2, {"loss": 0.5}) in stage.seen)
    assert stage.seen[0] == (1, {})
    assert stage.total == 40


def test_the_total_stays_when_the_work_does_not_know_it():
    stage = Stage()
    with follow(FakeBoard(Progress(3)), stage):
        pass
    assert (stage.total, stage.seen[-1]) == (7, (3, {}))


def test_the_last_word_is_shown_even_if_the_work_was_quick():
    stage = Stage()
    with follow(FakeBoard(Progress(9, 9)), stage):
        pass
    assert stage.seen[-1] == (9, {})


def test_an_error_of_the_work_passes():
    with pytest.raises(KeyError), follow(FakeBoard(Progress(1)), Stage()):
        raise KeyError


def test_a_lost_board_does_not_stop_the_work_nor_is_it_asked_again():
    board, stage = FakeBoard(ray.exceptions.RayActorError()), Stage()
    with follow(board, stage):
        wait_for(lambda: board.num_asked == 1)
        time.sleep(0.05)
    assert stage.seen == []
    assert board.num_asked == 2  # once more at the end


def test_a_late_answer_is_waited_for():
    board, stage = FakeBoard(ray.exceptions.GetTimeoutError(), Progress(4)), Stage()
    with follow(board, stage):
        wait_for(lambda: stage.seen)
    assert stage.seen[0] == (4, {})


def test_words_are_sent_no_more_often_than_they_are_read(monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 1000.0)
    board = FakeBoard(None)
    board._actor, board._sent = Actor(), 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5000.0)
    for done in range(1, 11):
        board.update(done, 10, loss=1 / done)
    assert board._actor.sent == [Progress(1, 10, {"loss": 1.0}), Progress(10, 10, {"loss": 0.1})]
