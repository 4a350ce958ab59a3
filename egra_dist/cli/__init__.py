"""The command line: one module per group of verbs, one way to report what went wrong."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import typer

from egra_dist.errors import UserError
from egra_dist.redaction import redact

app = typer.Typer(
    name="egra-dist",
    help="Train EGRA, a multimodal graph recommender, on a laptop or on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_MODULES = (
    "run",
    "plan",
    "submit",
    "sweep",
    "compare",
    "catalog",
    "featurize",
    "serve",
    "track",
    "doctor",
    "knn",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``egra-dist``: a user's mistake is one line and exit status 2.

    Anything else that fails ends with a traceback and exit status 1. Passwords and tokens are left
    out of both.

    Args:
        arguments: Those of the process when None.
    """
    for module in _MODULES:
        import_module(f"egra_dist.cli.{module}").register(app)
    try:
        app(arguments)
    except UserError as error:
        sys.stderr.write(redact(f"egra-dist: error: {error}\n"))
        sys.exit(2)
    except Exception:
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)
