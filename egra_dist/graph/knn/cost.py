"""What a method will cost, and which one is chosen.

Seconds of one core, measured with AVX-512 and bfloat16 products; only their ratios decide.
"""

from dataclasses import dataclass

from egra_dist.graph.knn.settings import KnnSettings

_JOIN_PAIR = (0.9e-9, 9e-12)
_SEARCH_PAIR = (0.8e-9, 22e-12)
_DEVICE_PAIR = (0.35e-12, 5e-15)
_DEVICE_VISIT = 2e-8
_DEVICE_ROW = 1.5e-7
_PER_ROW = 4e-6
_LIST_SIZE = 256
_FEWEST_ROWS_TO_ROUTE = 256
DEVICE_LIST_SIZE = 16_384
"""Rows per list on a GPU, about."""
DIRECT_ROWS = 16_384
"""Rows up to which one process compares all with all at once."""
WIDE_DIM = 512
"""Width from which on the routed join works on a projection."""


@dataclass(frozen=True)
class Choice:
    """The method, and why."""

    method: str
    reason: str


def join_seconds(num_pairs: float, dim: int) -> float:
    """Cost of the join kernel."""
    return num_pairs * (_JOIN_PAIR[0] + _JOIN_PAIR[1] * dim)


def search_seconds(num_pairs: float, dim: int) -> float:
    """Cost of the search kernel."""
    return num_pairs * (_SEARCH_PAIR[0] + _SEARCH_PAIR[1] * dim)


def sweep_seconds(num_rows: int, dim: int) -> float:
    """Cost of the exact method above ``DIRECT_ROWS``."""
    return join_seconds(num_rows**2 / 2, dim) + num_rows * 3 * _PER_ROW


def routed_seconds(num_rows: int, dim: int, probes: float, settings: KnnSettings) -> float:
    """Cost of the routed self-join and its audit."""
    pairs = num_rows * list_size_of(num_rows, settings) * (probes + 1)
    audit = search_seconds(settings.audit_rows * num_rows, dim)
    return join_seconds(pairs, dim) + audit + num_rows * 3 * _PER_ROW


def list_size_of(num_rows: int, settings: KnnSettings) -> int:
    """Rows per list: what the user said, else enough for k neighbours and a cheap routing.

    Small lists let rows look more closely around them, but a row is compared with about the root
    of the number of lists, and each list with all others.
    """
    wanted = max(_LIST_SIZE, 10 * settings.k, round(num_rows**0.5 / 3))
    return settings.list_size or min(wanted, max(1, num_rows // 8))


def direct_rows(settings: KnnSettings) -> int:
    """Rows up to which all are compared with all in one process, without tasks."""
    return _FEWEST_ROWS_TO_ROUTE if settings.method == "routed" else DIRECT_ROWS


def device_seconds(num_pairs: float, dim: int) -> float:
    """Seconds that products take on a GPU (an H200; ``tests.benchmarks.device``)."""
    return num_pairs * (_DEVICE_PAIR[0] + _DEVICE_PAIR[1] * dim)


def device_routed_seconds(num_rows: int, dim: int, probes: float) -> float:
    """The same for the routed search: products, sorting the maxima of each list, and scores."""
    pairs = num_rows * probes * min(DEVICE_LIST_SIZE, num_rows)
    return device_seconds(pairs, dim) + num_rows * (probes * _DEVICE_VISIT + _DEVICE_ROW)


def choose(num_rows: int, dim: int, settings: KnnSettings, device: str = "cpu") -> Choice:
    """Picks the method."""
    if settings.method != "auto":
        return Choice(settings.method, "as asked")
    is_on_cpu = device == "cpu"
    seconds = sweep_seconds(num_rows, dim) if is_on_cpu else device_seconds(num_rows**2, dim)
    if seconds <= settings.exact_seconds:
        return Choice(
            "exact",
            f"{num_rows:,} rows take about {seconds:.1f} core seconds exactly, within "
            f"exact_seconds={settings.exact_seconds:g}",
        )
    return Choice(
        "routed", f"{num_rows:,} rows would take about {seconds:,.0f} core seconds exactly"
    )
