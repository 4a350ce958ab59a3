"""The k-nearest-neighbour graph of a table of vectors, of any size."""

from egra_dist.graph.knn.build import build_knn
from egra_dist.graph.knn.graph import NO_NEIGHBOR, KnnGraph
from egra_dist.graph.knn.incremental import append_knn
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.tasks import Workers

__all__ = ["NO_NEIGHBOR", "KnnGraph", "KnnSettings", "Workers", "append_knn", "build_knn"]
