"""Writes ``docs/settings.md`` from the typed settings: ``python -m docs.make.settings``.

Names, types, bounds and defaults are those of the classes in ``egra_dist/config``, the words are
the docstrings under their fields. A test compares the page with what this would write.
"""

import ast
import inspect
import itertools
import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from egra_dist.config import BaselineSettings, Config, PretrainSettings, TrainingSettings
from egra_dist.config.base import OneOf, Settings
from egra_dist.config.models import MODELS
from egra_dist.sweep.space import Distribution, SchedulerSettings, SearchSpace

PAGE = Path(__file__).parent.parent / "settings.md"
HEAD = """\
# Settings

<!-- Made by `python -m docs.make.settings` from the classes in `egra_dist/config`; do not edit. -->

A configuration is a YAML file of these sections. What it does not say has the default given here;
`--set SECTION.NAME=VALUE` (read as YAML) changes one setting, and a file given with `--cluster` is
the section `cluster`. A misspelt name or a value that is not allowed is one line that says which
names and values there are. `config.yaml` in the run folder holds every setting of a run.

```yaml
seed: 1
item_graph: {k: 5, beta: 0.5}
train:
  alignment: {focus: hard, lambda_max: 0.02}
```

`train`, `pretrain` and every entry of `baselines` have the same settings, those of a
[training](#train).
"""
FOR_THE_SEARCH = (
    "What `egra-dist sweep --space` reads; [Searching settings](sweeps.md) explains it.\n"
)


_SECTIONS = {
    "BaselineSettings": "baselinesname",
    "Distribution": "spacesetting-of-a-search",
    "ItemGraphSettings": "item_graph",
}
"""Headings of sections that are named by fields of other kinds."""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    only_there = set(BaselineSettings.model_fields) - set(TrainingSettings.model_fields)
    parts = [
        HEAD,
        *_sections(Config, ""),
        f"## `baselines.NAME`\n\n{_class_words(BaselineSettings)} Beside a training's:\n",
        _table(BaselineSettings, "baselines", only_there),
        _defaults_by_model(),
        f"## Search spaces\n\n{FOR_THE_SEARCH}",
        _table(SearchSpace, "search"),
        "### `scheduler` of a search\n",
        _table(SchedulerSettings, "scheduler"),
        "### `space.SETTING` of a search\n\nExactly one of\n",
        _table(Distribution, "space"),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _sections(section: type[BaseModel], path: str) -> Iterator[str]:
    """A part of the page for a section and for each below it."""
    title = f"`{path}`" if path else "The whole run"
    yield f"## {title}\n\n{_class_words(section)}\n"
    yield _table(section, path)
    for name, child in _children(section):
        if child is not PretrainSettings:  # the settings of a training stand under `train`
            yield from _sections(child, f"{path}.{name}" if path else name)


def _children(section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield name, field.annotation


def _table(section: type[BaseModel], path: str, chosen: Container[str] | None = None) -> str:
    """A row for each field of a section, or for the chosen ones."""
    rows = ["| setting | allowed | default | |", "|---|---|---|---|"]
    for name in section.model_fields:
        if chosen is None or name in chosen:
            rows.append(_row(section, name, f"{path}.{name}".lstrip(".")))
    return "\n".join(rows) + "\n"


def _row(section: type[BaseModel], name: str, key: str) -> str:
    field, words = section.model_fields[name], field_words(section)
    child = dict(_children(section)).get(name)
    if child is None:
        schema = section.model_json_schema()
        shown = f'<a id="{key}"></a>`{name}`'
        allowed = _allowed(schema["properties"][name], schema, field.metadata)
        default = _default(field.get_default(call_default_factory=True))
        text = words[name]
    else:
        target = "train" if child is PretrainSettings else key
        heading = (
            target.replace(".", "") if child is not SchedulerSettings else "scheduler-of-a-search"
        )
        shown, allowed, default = f"`{name}`", f"[section](#{heading})", ""
        text = words.get(name) or _class_words(child)
    return "| " + " | ".join((shown, allowed, default, text.replace("|", "\\|"))) + " |"


def field_words(section: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field of a class and of those it inherits from."""
    words: dict[str, str] = {}
    for owner in reversed([c for c in section.__mro__ if issubclass(c, Settings)]):
        body = ast.parse(dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
        for field, after in itertools.pairwise(body):
            is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if is_field and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                words[field.target.id] = _plain(after.value.value)  # type: ignore[attr-defined]
    return words


def _class_words(section: type[BaseModel]) -> str:
    return _plain(section.__doc__ or "")


def _plain(text: str) -> str:
    """A docstring as one line of Markdown."""
    text = " ".join(text.split()).replace("``", "`")
    return re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", text)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "not given"
    if isinstance(value, Path):
        value = str(value)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _allowed(schema: dict[str, Any], root: dict[str, Any], metadata: list[Any]) -> str:
    """A JSON schema in words."""
    for known in metadata:
        if isinstance(known, OneOf):
            return _values(known.names) + ", or your own `package.module:function`"
    if "anyOf" in schema:
        return " or ".join(
            _allowed(one, root, []) for one in schema["anyOf"] if one.get("type") != "null"
        )
    if "$ref" in schema:
        return f"[section](#{_SECTIONS[schema['$ref'].rpartition('/')[2]]})"
    if "enum" in schema:
        return _values(schema["enum"])
    return _type(schema, root) + _bounds(schema)


def _type(schema: dict[str, Any], root: dict[str, Any]) -> str:
    kind = schema.get("format") or schema.get("type")
    if kind == "array" and "prefixItems" in schema:
        return f"[{', '.join(_type(one, root) for one in schema['prefixItems'])}]"
    if kind == "array":
        least = f" of at least {schema['minItems']}" if "minItems" in schema else ""
        return f"list{least}" + _of(schema.get("items", {}), root, ":" if least else " of")
    if kind == "object":
        return "mapping from names" + _of(schema["additionalProperties"], root, " to")
    words = {"boolean": "`true`, `false`", "string": "text", None: "anything"}
    return words.get(kind, str(kind))


def _of(items: dict[str, Any], root: dict[str, Any], word: str) -> str:
    if not items:
        return ""
    if "$ref" in items:
        return f"{word} [sections](#{_SECTIONS[items['$ref'].rpartition('/')[2]]})"
    return f"{word} {_allowed(items, root, [])}"


def _bounds(schema: dict[str, Any]) -> str:
    signs = {
        "minimum": "≥ {}",
        "exclusiveMinimum": "> {}",
        "maximum": "≤ {}",
        "exclusiveMaximum": "< {}",
        "multipleOf": "a multiple of {}",
        "pattern": "`{}`",
    }
    said = [
        sign.format(f"{schema[key]:g}" if isinstance(schema[key], float) else schema[key])
        for key, sign in signs.items()
        if key in schema and "prefixItems" not in schema
    ]
    return " " + ", ".join(said).replace("|", "\\|") if said else ""


def _values(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _defaults_by_model() -> str:
    """What a model's name changes of the defaults."""
    plain = _flat(TrainingSettings().model_dump(mode="json"))
    rows = ["| where | default |", "|---|---|"]
    trainings = {f"`model.name: {name}`": TrainingSettings(model={"name": name}) for name in MODELS}
    for where, training in {"`pretrain`": PretrainSettings(), **trainings}.items():
        own = _flat(training.model_dump(mode="json"))
        differs = [
            f"`{key}: {value}`"
            for key, value in own.items()
            if value != plain[key] and not (key == "model.name" and "model.name" in where)
        ]
        if differs:
            rows.append(f"| {where} | {', '.join(differs)} |")
    return (
        "## Defaults that depend on the model\n\nThe tables above give those of `train`; these "
        "differ unless they are given.\n\n" + "\n".join(rows) + "\n"
    )


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


if __name__ == "__main__":
    main()
