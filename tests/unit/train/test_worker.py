from types import SimpleNamespace

import pytest
import torch

from egra_dist.config import TrainingSettings
from egra_dist.train import worker


@pytest.mark.parametrize(
    ("precision", "device", "is_fast", "is_warned"),
    [
        ("bfloat16", "cpu", False, True),
        ("bfloat16", "cpu", True, False),
        ("bfloat16", "cuda", False, False),
        ("float32", "cpu", False, False),
    ],
)
def test_emulated_products_are_warned_of(monkeypatch, precision, device, is_fast, is_warned):
    monkeypatch.setattr(worker, "multiplies_bfloat16_fast", lambda: is_fast)
    warnings = []
    task = SimpleNamespace(
        stage="train",
        settings=TrainingSettings(precision=precision),
        progress=SimpleNamespace(warn=warnings.append),
    )
    worker._warn_of_slow_products(task, torch.device(device))
    assert len(warnings) == is_warned
    assert all("train.precision" in warning for warning in warnings)
