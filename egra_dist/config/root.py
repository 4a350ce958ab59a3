"""All settings of a run, in one."""

from pydantic import model_validator

from egra_dist.config.base import Seed, Settings
from egra_dist.config.graphs import FeatureGraphSettings, FeatureSettings, ItemGraphSettings
from egra_dist.config.running import (
    ClusterSettings,
    EvaluationSettings,
    ExportSettings,
    HistorySettings,
    TrackingSettings,
)
from egra_dist.config.training import PretrainSettings, TrainingSettings

STAGES = ("features", "graphs", "pretrain", "knn", "merge", "train", "evaluate", "export")
MAIN = "train"
"""The stage of the model that a run is about."""
METRICS = ("recall", "ndcg", "precision", "map", "hit_rate")


class BaselineSettings(TrainingSettings):
    """A model that is trained beside EGRA."""

    item_graph: ItemGraphSettings | None = None
    """The item-item edges that are merged for it; when not given, GUME's are those that all
    modalities agree on, and other models have none."""

    @property
    def merged_graph(self) -> ItemGraphSettings | None:
        """The item graph that this model propagates over."""
        graph = self.item_graph
        if graph is None and self.model.name == "gume":
            graph = ItemGraphSettings(source="raw")
        return graph if graph and graph.source != "none" else None

    @model_validator(mode="after")
    def _item_graph_is_used(self) -> "BaselineSettings":
        if self.item_graph and self.model.name in ("vbpr", "freedom"):
            raise ValueError(
                f"item_graph: {self.model.name} propagates over no merged graph; leave it out"
            )
        return self


class Config(Settings):
    """All settings of a run."""

    seed: Seed = 0
    """Of everything that is drawn at random."""
    baselines: dict[str, BaselineSettings] = {}
    """Models that are trained and evaluated beside the pretrained one and EGRA, by name."""
    features: FeatureSettings = FeatureSettings()
    feature_graph: FeatureGraphSettings = FeatureGraphSettings()
    pretrain: PretrainSettings = PretrainSettings()
    item_graph: ItemGraphSettings = ItemGraphSettings()
    train: TrainingSettings = TrainingSettings()
    history: HistorySettings = HistorySettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    export: ExportSettings = ExportSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def trainings(self) -> dict[str, TrainingSettings]:
        """Every training of a run by its stage."""
        return {"pretrain": self.pretrain, **self.baselines, "train": self.train}

    @property
    def item_graphs(self) -> dict[str, ItemGraphSettings]:
        """Every item graph of a run, by the stage that trains on it."""
        graphs = {name: settings.merged_graph for name, settings in self.baselines.items()}
        if self.train.model.uses_item_graph and self.item_graph.source != "none":
            graphs[MAIN] = self.item_graph
        return {name: graph for name, graph in graphs.items() if graph}

    @model_validator(mode="after")
    def _metrics_are_computed(self) -> "Config":
        names = [f"{name}_at_{k}" for name in METRICS for k in self.evaluation.cutoffs]
        for stage, training in self.trainings.items():
            if training.metric not in names:
                raise ValueError(
                    f"{stage}.metric: {training.metric!r} is not computed; one of {names}"
                )
        return self

    @model_validator(mode="after")
    def _kernels_are_there(self) -> "Config":
        for stage, training in self.trainings.items():
            if training.tables.lookup == "direct" or self.cluster.gpus_per_worker:
                continue
            if training.tables.kernel != "fused":
                raise ValueError(
                    f"{stage}.tables.kernel = {training.tables.kernel!r}: needs GPUs, and "
                    f"cluster.gpus_per_worker is 0; 'fused' is for CPUs, too"
                )
            if training.optimizer.tables != "rowwise_adagrad":
                raise ValueError(
                    f"{stage}.optimizer.tables = {training.optimizer.tables!r}: with tables.lookup "
                    f"= 'torchrec' and cluster.gpus_per_worker = 0 only 'rowwise_adagrad', as "
                    f"FBGEMM has no other kernel for CPUs"
                )
        return self

    @model_validator(mode="after")
    def _managed_tables_keep_their_workers(self) -> "Config":
        for stage, training in self.trainings.items():
            managed, cluster = training.tables.managed_collision, self.cluster
            if managed.is_used and cluster.min_workers:
                raise ValueError(
                    f"cluster.min_workers = {cluster.min_workers}: not with "
                    f"{stage}.tables.managed_collision, where ids stay with their worker"
                )
            for name in ("user_rows", "item_rows"):
                rows = getattr(managed, name)
                if rows and rows < 2 * cluster.num_workers:
                    raise ValueError(
                        f"{stage}.tables.managed_collision.{name} = {rows}: at least two for each "
                        f"of {cluster.num_workers} workers"
                    )
        return self

    @model_validator(mode="after")
    def _baselines_have_names_of_their_own(self) -> "Config":
        for name in self.baselines:
            if name in STAGES or not name.isidentifier():
                raise ValueError(
                    f"baselines.{name}: {name!r} cannot be the name of a model; "
                    f"letters, digits and _, and none of {', '.join(STAGES)}"
                )
        return self
