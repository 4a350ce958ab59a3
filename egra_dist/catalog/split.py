"""Which interactions train, which validate, which test.

Every rule takes interactions sorted by user and, within a user, in the order in which they are
given away (time, or a random order), and returns a label per interaction: the position in
``SPLITS``.
"""

import numpy as np
from numpy.typing import NDArray

TRAIN, VALID, TEST = 0, 1, 2


def ratio_counts(
    num_rows: NDArray[np.int64], ratios: tuple[float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of each user's interactions validate and test, by the common toolkits' rule.

    A user gives ``floor(ratio * n)`` to each held-out part, but at least one to the test part and
    then to the validation part as long as two or more are left for training (RecBole,
    ``_calcu_split_ids``).

    Args:
        num_rows: ``[num_users]`` interactions of each user.
        ratios: Shares of train, valid and test; they sum to 1.

    Returns:
        Numbers of validation and test interactions, each ``[num_users]``.
    """
    # 0.1 * 30 is 3.0000000000000004 and 0.7 * 10 is 6.999999999999999: both are meant whole.
    valid, test = (np.floor(ratio * num_rows + 1e-9).astype(np.int64) for ratio in ratios[1:])
    train = num_rows - valid - test
    for held_out, ratio in ((test, ratios[2]), (valid, ratios[1])):
        gives_one = (held_out == 0) & (ratio > 0) & (train > 1)
        held_out += gives_one
        train -= gives_one
    return valid, test


def split_by_counts(
    num_rows: NDArray[np.int64], num_valid: NDArray[np.int64], num_test: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Labels: of each user the last ``num_test`` test, the ``num_valid`` before them validate.

    Args:
        num_rows: ``[num_users]`` interactions of each user.
        num_valid: ``[num_users]``.
        num_test: ``[num_users]``.

    Returns:
        ``int8 [num_interactions]``, users in their order.
    """
    stops = np.cumsum(num_rows)
    rows_left = np.repeat(stops, num_rows) - np.arange(stops[-1] if len(stops) else 0)
    tests = np.repeat(num_test, num_rows)
    held_out = np.repeat(num_valid, num_rows) + tests
    labels = np.full(len(rows_left), TRAIN, dtype=np.int8)
    labels[rows_left <= held_out] = VALID
    labels[rows_left <= tests] = TEST
    return labels


def split_by_ratio(
    num_rows: NDArray[np.int64], ratios: tuple[float, float, float]
) -> NDArray[np.int8]:
    """Labels of a per-user ratio split, see :func:`ratio_counts`."""
    return split_by_counts(num_rows, *ratio_counts(num_rows, ratios))


def split_last_out(num_rows: NDArray[np.int64]) -> NDArray[np.int8]:
    """Labels of leave-last-out: the last tests, the last but one validates.

    A user with two interactions has none to validate, with one none to test either.
    """
    return split_by_counts(
        num_rows, (num_rows >= 3).astype(np.int64), (num_rows >= 2).astype(np.int64)
    )


def split_by_time(times: NDArray[np.int64], ratios: tuple[float, float, float]) -> NDArray[np.int8]:
    """Labels of a global-time split: everybody's past trains, everybody's future is held out.

    The borders are the quantiles of all times; equal times stay together on the earlier side.

    Args:
        times: ``[num_interactions]``.
        ratios: Shares of train, valid and test; they sum to 1.

    Returns:
        ``int8 [num_interactions]``.
    """
    if not len(times):
        return np.empty(0, dtype=np.int8)
    ordered = np.sort(times)
    last_of_part = np.ceil(np.cumsum(ratios[:2]) * len(times) - 1e-9).astype(np.int64) - 1
    borders = ordered[np.maximum(last_of_part, 0)]
    return np.searchsorted(borders, times, side="left").astype(np.int8)
