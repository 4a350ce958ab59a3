"""Small summaries of many values."""

from torch import Tensor

_QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}


def quantiles(values: Tensor, name: str) -> dict[str, float]:
    """Quantiles and mean of ``values [num_values]`` as metrics ``<name>_p50`` and so on."""
    if not len(values):
        return {}
    points = values.new_tensor(list(_QUANTILES.values()))
    found = values.quantile(points).tolist()
    named = {f"{name}_{label}": value for label, value in zip(_QUANTILES, found, strict=True)}
    return {**named, f"{name}_mean": float(values.mean())}
