"""The typed settings: what is learned, and apart from it where it runs.

A configuration is a YAML file plus dotted overrides (``train.alignment.focus=hard``). An unknown
key or a bad value is an error that names its path, the value, what is allowed, and the nearest
right key. Every default stands here, once.
"""

from egra_dist.config.base import Settings
from egra_dist.config.graphs import FeatureGraphSettings, FeatureSettings, ItemGraphSettings
from egra_dist.config.loading import load_config, parse_config, read_settings
from egra_dist.config.losses import AlignmentSettings, RankingSettings
from egra_dist.config.models import Bm3Settings, FreedomSettings, ModelName, ModelSettings
from egra_dist.config.propagation import PropagationSettings
from egra_dist.config.root import MAIN, METRICS, STAGES, BaselineSettings, Config
from egra_dist.config.running import (
    ClusterSettings,
    EvaluationSettings,
    ExportSettings,
    HistorySettings,
    KubernetesSettings,
    TrackingSettings,
)
from egra_dist.config.shares import modality_shares
from egra_dist.config.tables import (
    ManagedCollisionSettings,
    OptimizerSettings,
    TableSettings,
)
from egra_dist.config.training import PretrainSettings, TrainingSettings

__all__ = [
    "MAIN",
    "METRICS",
    "STAGES",
    "AlignmentSettings",
    "BaselineSettings",
    "Bm3Settings",
    "ClusterSettings",
    "Config",
    "EvaluationSettings",
    "ExportSettings",
    "FeatureGraphSettings",
    "FeatureSettings",
    "FreedomSettings",
    "HistorySettings",
    "ItemGraphSettings",
    "KubernetesSettings",
    "ManagedCollisionSettings",
    "ModelName",
    "ModelSettings",
    "OptimizerSettings",
    "PretrainSettings",
    "PropagationSettings",
    "RankingSettings",
    "Settings",
    "TableSettings",
    "TrackingSettings",
    "TrainingSettings",
    "load_config",
    "modality_shares",
    "parse_config",
    "read_settings",
]
