"""The verb that links rows of vectors to their nearest others: ``knn``."""

import logging
import shutil
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egra_dist.errors import UserError

if TYPE_CHECKING:
    from egra_dist.graph.knn import KnnGraph, KnnSettings

logger = logging.getLogger(__name__)


class Metric(StrEnum):
    """Similarity of two vectors."""

    cosine = "cosine"
    inner_product = "inner_product"
    l2 = "l2"


class Method(StrEnum):
    """How neighbours are searched."""

    auto = "auto"
    exact = "exact"
    routed = "routed"


class Combination(StrEnum):
    """Which edges of several tables remain."""

    intersection = "intersection"
    union = "union"


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(knn)


def knn(
    vectors: Annotated[
        list[Path],
        typer.Argument(
            metavar="VECTORS...",
            help="A .npy file [rows, dim], or Parquet with a column of vectors; one per modality.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The graph folder to write.")],
    k: Annotated[int, typer.Option(min=1, max=200, help="Neighbours per row.")] = 10,
    recall: Annotated[float, typer.Option(help="Share of true neighbours to find.")] = 0.98,
    metric: Annotated[Metric, typer.Option(help="Similarity.")] = Metric.cosine,
    method: Annotated[Method, typer.Option(help="auto predicts the cost.")] = Method.auto,
    column: Annotated[str, typer.Option(help="Parquet column of vectors.")] = "vector",
    id_column: Annotated[
        str | None, typer.Option("--id", help="Parquet column of ids, written with the edges.")
    ] = None,
    combine: Annotated[
        Combination, typer.Option(help="Which edges of several tables remain.")
    ] = Combination.intersection,
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight of a table, once per table.")
    ] = None,
    mutual: Annotated[bool, typer.Option(help="Keep edges that go both ways.")] = False,
    max_in_degree: Annotated[
        int | None, typer.Option(min=1, help="Keep the best edges into a row.")
    ] = None,
    append_to: Annotated[
        Path | None, typer.Option(help="Earlier graph of the first rows; only later ones are new.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray workers of one CPU; 0: threads of this process.")
    ] = 0,
    address: Annotated[str | None, typer.Option(help="Ray cluster; its CPUs do the work.")] = None,
) -> None:
    """Link every row of VECTORS to its k nearest other rows.

    The recall is measured on a sample of rows and written down with the graph. A call that was
    interrupted goes on where it stopped. Rows without a vector (null, zero, not finite) get no
    edges. A GPU does the work where there is one.

    Example: egra-dist knn vectors.npy --k 10 --recall 0.98 --out graphs/items
    """
    from egra_dist.graph.knn import KnnSettings

    if not 0 < recall <= 1:
        raise UserError(f"--recall {recall}: expected a share in (0, 1]")
    if append_to is not None and len(vectors) > 1:
        raise UserError("--append-to: only with one table of vectors")
    settings = KnnSettings(k=k, recall=recall, metric=metric.value, method=method.value, seed=seed)
    with ExitStack() as stack:
        if workers or address:
            _start_ray(stack, workers, address)
        _write(
            vectors, out, settings, column, id_column, append_to,
            _shaping(combine.value, weight, mutual, max_in_degree),
        )  # fmt: skip


def _start_ray(stack: ExitStack, workers: int, address: str | None) -> None:
    from egra_dist.cluster.session import ray_session
    from egra_dist.config import ClusterSettings

    settings = ClusterSettings(address=address, num_workers=max(1, workers), cpus_per_worker=1)
    stack.enter_context(ray_session(settings))


def _shaping(
    how: str, weights: list[float] | None, mutual: bool, max_in_degree: int | None
) -> dict[str, object]:
    return {"combine": how, "weights": weights, "mutual": mutual, "max_in_degree": max_in_degree}


def _write(
    paths: list[Path],
    out: Path,
    settings: "KnnSettings",
    column: str,
    id_column: str | None,
    append_to: Path | None,
    shaping: dict[str, object],
) -> None:
    from egra_dist.artifact import writing
    from egra_dist.graph.knn.build import content_digest
    from egra_dist.graph.knn.output import to_csr, write_parquet
    from egra_dist.graph.knn.vectors import read_vectors
    from egra_dist.manifest import Manifest, digest_of

    with writing(out, keep_partial=True) as folder:
        work = folder / "work"
        tables = {
            str(path): read_vectors(path, column, id_column, work / str(number))
            for number, path in enumerate(paths)
        }
        graph = _shaped(_build_all(tables, settings, append_to, work), settings, shaping)
        graph.save(folder)
        write_parquet(graph, folder / "edges", tables[str(paths[0])].raw_ids)
        to_csr(graph).save(folder / "csr")
        recipe = {**settings.model_dump(mode="json"), **shaping}
        inputs = {
            name: content_digest(table.values, table.present) for name, table in tables.items()
        }
        digest = digest_of("knn", recipe, inputs)
        Manifest("knn", digest, recipe, inputs, graph.statistics).write(folder)
        shutil.rmtree(work, ignore_errors=True)
    typer.echo(f"{out}: {graph.statistics['num_edges']:,} edges")
    for name in ("method", "reason", "recall", "recall_half_width", "share_short_rows"):
        if name in graph.statistics:
            typer.echo(f"  {name.replace('_', ' ')}: {graph.statistics[name]}")


def _build_all(
    tables: dict, settings: "KnnSettings", append_to: Path | None, work: Path
) -> "dict[str, KnnGraph]":
    from egra_dist.graph.knn import KnnGraph, append_knn, build_knn
    from egra_dist.tracking.progress import StageProgress

    graphs = {}
    for name, table in tables.items():
        with StageProgress("knn", len(table.values), unit="rows") as progress:
            if append_to is not None:
                earlier = KnnGraph.load(append_to)
                graph = append_knn(earlier, table.values, settings, table.present, work, progress)
            else:
                graph = build_knn(table.values, settings, table.present, work, progress)
        graphs[name] = graph
    return graphs


def _shaped(graphs: "dict[str, KnnGraph]", settings: "KnnSettings", shaping: dict) -> "KnnGraph":
    from egra_dist.graph.knn.combine import combine
    from egra_dist.graph.knn.shape import cap_in_degree, keep_mutual

    graph = next(iter(graphs.values()))
    if len(graphs) > 1:
        graph = combine(graphs, shaping["combine"], settings.k, shaping["weights"])
    if shaping["mutual"]:
        graph = keep_mutual(graph)
    if shaping["max_in_degree"]:
        graph = cap_in_degree(graph, shaping["max_in_degree"])
    return graph
