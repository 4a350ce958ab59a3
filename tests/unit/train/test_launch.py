import signal

import pytest

from egra_dist.train.launch import _fit


class Trainer:
    """Answers Ctrl-C as Ray Train does, and leaves its handler behind as Ray Train does."""

    def __init__(self, *signals):
        self._signals = signals

    def fit(self):
        def abort(number, frame):
            raise SystemExit(0)

        signal.signal(signal.SIGINT, abort)
        for number in self._signals:
            signal.raise_signal(number)


@pytest.fixture(autouse=True)
def as_before():
    """Python's own handler, also where the shell started the tests with SIGINT ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, earlier) is signal.default_int_handler


def test_ctrl_c_while_training_is_no_success():
    with pytest.raises(KeyboardInterrupt):
        _fit(Trainer(signal.SIGINT))


def test_ctrl_c_after_a_training_interrupts():
    _fit(Trainer())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_exit_keeps_its_status(monkeypatch):
    def exit_at_once(self):
        raise SystemExit(143)

    monkeypatch.setattr(Trainer, "fit", exit_at_once)
    with pytest.raises(SystemExit, match="143"):
        _fit(Trainer())
