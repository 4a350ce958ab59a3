"""Verbs that run the pipeline: ``run`` and ``demo``."""

from pathlib import Path
from typing import Annotated

import typer

_RUNS_VIEW = "/#/experiments/1/runs?workflowType=machine_learning"
"""Without the last part MLflow's page opens in what it has for language models."""
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"

CatalogOption = Annotated[Path, typer.Option("--catalog", help="Catalogue folder.")]
CatalogSource = Annotated[str, typer.Option("--catalog", help="Catalogue folder, or its URI.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="Where results and checkpoints are copied to, and come from: s3://..., gs://..., ...",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. train.alignment.focus=easy."),
]
Verbosity = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Show what the libraries say; -vv: more.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of workers; short for cluster.num_workers.")
]
ConfigFile = Annotated[Path, typer.Argument(help="YAML file of what is learned.")]
RunFolder = Annotated[Path, typer.Option(help="The run folder.")]
ClusterFile = Annotated[Path | None, typer.Option(help="YAML file of where it runs.")]
Stage = Annotated[str, typer.Option(help="The last stage to run.")]
Artifacts = Annotated[
    Path | None, typer.Option(help="Where results of stages are kept, for several runs to share.")
]


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.command()(run)
    app.command()(demo)


def run(
    config: ConfigFile,
    catalog: CatalogSource,
    out: RunFolder,
    cluster: ClusterFile = None,
    workers: Workers = None,
    overrides: Overrides = None,
    stage: Stage = "export",
    artifacts: Artifacts = None,
    storage: StorageOption = None,
    verbose: Verbosity = 0,
) -> None:
    """Run the pipeline, or what of it is not yet done.

    Stages: graphs, pretrain, knn, merge, train, evaluate, export. A stage whose result is there
    already is not run again; one that was interrupted goes on. With --artifacts, runs in folders
    of their own share what is equal, also when they run at the same time. With --storage, a run
    folder that was lost is fetched, and the run goes on. SIGTERM saves first; the exit status is
    then 75.

    Examples:
      egra-dist run configs/tiktok.yaml --catalog catalogs/tiktok --out runs/tiktok --workers 2

      egra-dist run configs/default.yaml --catalog catalogs/mine --out runs/mine
      --set train.alignment.focus=easy --set item_graph.k=5

      egra-dist run configs/default.yaml --catalog catalogs/mine --out runs/easy
      --artifacts artifacts/mine --set train.alignment.focus=easy

      egra-dist run configs/default.yaml --catalog s3://shop/catalogs/may --out runs/may
      --storage s3://shop/runs/may
    """
    settings = all_overrides(overrides, workers)
    _run(config, catalog, out, cluster, settings, stage, verbose, artifacts, storage)


def all_overrides(overrides: list[str] | None, workers: int | None) -> list[str]:
    """What ``--set`` and ``--workers`` say, as ``KEY=VALUE``."""
    return [*(overrides or []), *([f"cluster.num_workers={workers}"] if workers else [])]


def demo(
    out: Annotated[Path, typer.Option(help="Where catalogue and run go.")] = Path("runs/demo"),
    overrides: Overrides = None,
    verbose: Verbosity = 0,
) -> None:
    """Make a small synthetic catalogue, train four models on it, and compare them.

    Examples:
      egra-dist demo

      egra-dist demo --out /tmp/demo --set seed=1
    """
    from egra_dist.catalog.synth import SynthSettings, synthesize

    catalog = out / "catalog"
    if not (catalog / "manifest.json").exists():
        synthesize(SynthSettings(num_items=3000, num_users=6000, num_interactions=65_000), catalog)
    _run(
        _CONFIGS / "demo.yaml", str(catalog), out / "run", None, overrides or [], "export", verbose
    )
    typer.echo(f"\nSee it in MLflow: mlflow ui --backend-store-uri sqlite:///{out}/run/mlflow.db")
    typer.echo(f"and open http://127.0.0.1:5000{_RUNS_VIEW}")


def _run(
    config: Path,
    catalog: str,
    out: Path,
    cluster: Path | None,
    overrides: list[str],
    stage: str,
    verbosity: int,
    artifacts: Path | None = None,
    storage: str | None = None,
) -> None:
    from egra_dist.catalog.remote import open_catalog
    from egra_dist.config import load_config
    from egra_dist.storage import Storage
    from egra_dist.tracking.noise import setup_logging

    setup_logging(verbosity)
    settings = load_config(config, overrides, cluster)
    kept = Storage(storage) if storage else None
    opened = open_catalog(catalog, settings.cluster.cache or out / "catalogs")
    from egra_dist.pipeline import run_pipeline  # seconds of imports: the user's mistakes first
    from egra_dist.results import print_models

    metrics = run_pipeline(settings, opened, out, stage, verbosity, artifacts, storage=kept)
    if metrics:
        print_models(metrics["models"])
        typer.echo(f"{out / 'metrics.json'} has every figure.")
