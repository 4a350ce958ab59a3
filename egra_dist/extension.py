"""Code of the user's own, named ``package.module:function`` where the name of a part is expected.

A name and not a function registered at run time, because trainings run in processes of their own:
a name can be written into a configuration, and every process can import what it stands for.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Whether a name has the form ``package.module:function``."""
    return _OWN.fullmatch(name) is not None


def load_own(name: str, where: str, folder: Path | None = None) -> Callable[..., Any]:
    """Imports the user's function.

    Args:
        name: ``package.module:function``.
        where: The setting or option that names it, for messages.
        folder: Modules are looked for there, too; the current folder when None.

    Raises:
        UserError: If the module cannot be imported or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    path = str(folder or Path.cwd())
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{where} {name}: cannot be imported: {error}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{where} {name}: {module_name} has no function {function_name!r}")
    return function


def source_of(name: str) -> Path | None:
    """The file of a module that :func:`load_own` has imported."""
    source = sys.modules[name.partition(":")[0]].__file__
    return Path(source) if source else None


def own_names(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Where settings name code of the user's own, and the name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from own_names(value, f"{prefix}{key}.")
        elif isinstance(value, str) and is_own(value):
            yield f"{prefix}{key}", value


def code_digests(settings: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the files of the user's own modules that settings name.

    What is made with another version of the code gets another name.
    """
    digests = {}
    for where, name in own_names(settings):
        load_own(name, where)
        if source := source_of(name):
            digests[name] = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    return digests
