"""The verb ``doctor``."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from egra_dist.cluster.doctor import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether this machine can run the pipeline, and what to do if not.

    Looks at the versions of torch, torchrec and fbgemm, which must match, at the other libraries,
    GPUs, CPUs and memory. Exit status 1 if something would make a run fail.

    Example: egra-dist doctor
    """
    from egra_dist.cluster.doctor import examine
    from egra_dist.cluster.machine import Machine

    findings = examine(Machine.here())
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    else:
        _show(findings)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _show(findings: "list[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "", "found", "what to do", box=None, pad_edge=False)
    for finding in findings:
        style = _STYLES[finding.status]
        status = f"[{style}]{finding.status}[/{style}]"
        table.add_row(finding.name, status, finding.found, finding.advice)
    Console().print(table)
