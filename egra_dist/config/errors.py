"""Words for settings that do not validate: path, value, what is allowed, nearest right key."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, root: type[BaseModel]) -> str:
    """One line for the first problems of a validation, at most three of them."""
    problems = [_describe_one(dict(problem), root) for problem in error.errors()[:3]]
    hidden = error.error_count() - len(problems)
    return "; ".join(problems) + (f" (and {hidden} more)" if hidden else "")


def _describe_one(problem: dict[str, Any], root: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {path!r}{_nearest(path, root)}"
    if problem["type"] == "missing":
        return f"{path}: is needed and not given"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    allowed = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{path} = {problem['input']!r}: {allowed}"


def _nearest(path: str, root: type[BaseModel]) -> str:
    """The nearest name in the same section, else in any, else all names of the section."""
    known = known_keys(root)
    parent, _, last = path.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    anywhere = {key.rpartition(".")[2]: key for key in known}
    for keys in (siblings, anywhere):
        matches = difflib.get_close_matches(last, keys, n=1)
        if matches:
            return f"; did you mean {keys[matches[0]]!r}?"
    return f"; allowed here: {', '.join(siblings)}"


def known_keys(root: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a settings class, sections included."""
    keys = []
    for name, info in root.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys.extend(known_keys(info.annotation, f"{prefix}{name}."))
    return keys
