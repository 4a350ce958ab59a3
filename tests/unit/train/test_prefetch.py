import threading
import time

import pytest

from egra_dist.train.prefetch import prefetch


def num_threads():
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_everything_comes_in_order():
    assert list(prefetch(range(50), 2)) == list(range(50))
    assert num_threads() == 0


def test_failure_comes_after_what_was_made_before():
    def source():
        yield 1
        raise ValueError("broken")

    made = prefetch(source(), 4)
    assert next(made) == 1
    with pytest.raises(ValueError, match="broken"):
        next(made)
    assert num_threads() == 0


def test_no_more_is_made_than_may_wait():
    made = []

    def source():
        for number in range(100):
            made.append(number)
            yield number

    results = prefetch(source(), 3)
    next(results)
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    # One taken, three waiting, one in hand.
    assert len(made) == 5
    results.close()
    assert num_threads() == 0
    assert len(made) == 5
