"""The verb ``submit``: a run as a job on a Ray cluster."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egra_dist.cli.run import (
    Artifacts,
    CatalogSource,
    ClusterFile,
    ConfigFile,
    Overrides,
    RunFolder,
    Stage,
    StorageOption,
    Verbosity,
    Workers,
    all_overrides,
)

if TYPE_CHECKING:
    from egra_dist.cluster.submission import Submission

_DETACHED = 130
"""Exit status of a command that was ended by Ctrl-C."""


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(submit)


def submit(
    config: ConfigFile,
    catalog: CatalogSource,
    out: RunFolder,
    cluster: ClusterFile = None,
    workers: Workers = None,
    overrides: Overrides = None,
    stage: Stage = "export",
    artifacts: Artifacts = None,
    storage: StorageOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; the run folder's when not given.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Job server, http://HOST:PORT; RAY_API_SERVER_ADDRESS, else this machine's port "
            "8265, when not given."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the job's output while waiting.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the job's end.")] = True,
    kuberay: Annotated[
        bool, typer.Option("--kuberay", help="Send nothing; print a RayJob manifest.")
    ] = False,
    kuberay_cluster: Annotated[
        bool,
        typer.Option("--kuberay-cluster", help="Send nothing; print a RayCluster manifest."),
    ] = False,
    verbose: Verbosity = 0,
) -> None:
    """Run the pipeline as a job on a Ray cluster.

    The same as `egra-dist run`, sent with this code and these settings, which are checked first.
    Catalogue and run folder are paths on a storage that all machines of the cluster see.

    The same command again attaches to a run that is alive, goes on with one that died, and says so
    of one that has finished. Its exit status is the job's. Ctrl-C detaches; the job goes on.

    Examples:
      egra-dist submit configs/tiktok.yaml --catalog /mnt/egra/tiktok --out /mnt/egra/runs/tiktok
      --cluster configs/cluster/eight_nodes.yaml --address http://head:8265

      egra-dist submit configs/default.yaml --catalog /mnt/egra/mine --out /mnt/egra/runs/mine
      --cluster configs/cluster/eight_nodes.yaml --kuberay > job.yaml
    """
    from egra_dist.cluster.submission import Submission
    from egra_dist.config import load_config
    from egra_dist.storage import Storage, is_uri
    from egra_dist.tracking.noise import setup_logging

    setup_logging(verbose)
    settings = load_config(config, all_overrides(overrides, workers), cluster)
    source = Storage(catalog).uri if is_uri(catalog) else str(Path(catalog).absolute())
    submission = Submission(
        name or out.absolute().name,
        settings,
        source,
        out.absolute(),
        stage,
        artifacts.absolute() if artifacts else None,
        Storage(storage) if storage else None,
        verbose,
    )
    if kuberay or kuberay_cluster:
        from egra_dist.cluster.kuberay import manifest

        typer.echo(manifest(submission, as_job=kuberay), nl=False)
        return
    _check(submission)
    sys.exit(_send(submission, address, follow, wait))


def _check(submission: "Submission") -> None:
    """Finds what cannot work, as far as it can be seen from here."""
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.checks import check_run, check_stage

    if Path(submission.catalog).exists():
        check_run(submission.config, Catalog.open(Path(submission.catalog)), submission.stage)
    else:
        check_stage(submission.stage)
        typer.echo(f"{submission.catalog}: not on this machine; the job will check it", err=True)


def _send(submission: "Submission", address: str | None, follow: bool, wait: bool) -> int:
    from egra_dist.cluster.jobs import JobServer

    server = JobServer(address, submission.verbosity)
    job_id = server.submit(submission)
    how_to_stop = f"`{server.stop_command(job_id)}` stops it, this command again attaches to it"
    if not wait:
        typer.echo(how_to_stop, err=True)
        return 0
    try:
        return server.follow(job_id, _write if follow else None)
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; {job_id} goes on: {how_to_stop}", err=True)
        return _DETACHED


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
