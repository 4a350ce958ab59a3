"""Moves all tensors of a nested structure at once."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def mapped(value: T, change: Callable[[Any], Any]) -> T:
    """A copy of a structure whose tensors are changed.

    Args:
        value: Tensors, and whatever else can be moved as they can (``KeyedJaggedTensor``), in
            mappings, sequences and objects of this project; all else stays.
        change: Makes a new tensor of each.
    """
    if _is_movable(value):
        return change(value)
    if isinstance(value, Mapping):
        return {name: mapped(part, change) for name, part in value.items()}  # type: ignore[return-value]
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(part, change) for part in value)  # type: ignore[return-value]
    if not _is_own(value):
        return value
    changed = copy.copy(value)
    for name, part in vars(value).items():
        object.__setattr__(changed, name, mapped(part, change))  # frozen dataclasses, too
    return changed


def movables(value: Any) -> Iterator[Any]:
    """The tensors of a structure, see :func:`mapped`."""
    if _is_movable(value):
        yield value
    elif isinstance(value, Mapping):
        yield from movables(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from movables(part)
    elif _is_own(value):
        yield from movables(vars(value))


def _is_movable(value: Any) -> bool:
    return hasattr(value, "record_stream") and not _is_own(value)


def _is_own(value: Any) -> bool:
    return type(value).__module__.startswith("egra_dist.") and hasattr(value, "__dict__")
