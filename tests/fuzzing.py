"""Inputs that nobody would write, and what each reader may answer: a result, or one clean line."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from egra_dist.errors import UserError
from tests.fuzz_examples import kept


@dataclass(frozen=True)
class Target:
    """What is fed with what.

    Attributes:
        strategy: Makes inputs.
        feed: Takes one input and an empty folder.
    """

    strategy: st.SearchStrategy
    feed: Callable[[Any, Path], object]


def fuzz(target: Target, num_inputs: int, first: int = 0) -> int:
    """Feeds inputs; the first that is not answered cleanly is shrunk and raised.

    Returns:
        How many were fed.
    """
    count = 0
    kept()  # not below, where its own mistakes would count as clean errors

    @seed(first)
    @settings(
        max_examples=num_inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.strategy)
    def feed(content: Any) -> None:
        nonlocal count
        count += 1
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                target.feed(content, Path(folder))
            except UserError as error:
                assert "\n" not in str(error), f"more than one line: {error!s}"

    feed()
    return count


def edited(content: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    """Bytes with some of them replaced; an empty replacement cuts the rest off."""
    for place, piece in changes:
        position = int(place * len(content))
        content = content[:position] + (piece + content[position + len(piece) :] if piece else b"")
    return content


def changed(content: Any, path: list[int], value: Any) -> Any:
    """Nested content with the entry at a path replaced."""
    if not path or not isinstance(content, dict | list) or not content:
        return value
    keys = sorted(content) if isinstance(content, dict) else list(range(len(content)))
    key = keys[path[0] % len(keys)]
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[key] = changed(content[key], path[1:], value)
    return copy
