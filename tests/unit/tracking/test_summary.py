"""Quantiles against numpy; a table that can be read anywhere."""

import io

import numpy as np
import pytest
import torch

from egra_dist.tracking import summary
from egra_dist.tracking.summary import print_table, quantiles


def test_quantiles_agree_with_numpy():
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    found = quantiles(values, "alignment/user_weight")
    exact = values.double().numpy()
    expected = {f"p{p}": np.quantile(exact, p / 100) for p in (10, 50, 90)}
    expected |= {"min": exact.min(), "max": exact.max(), "mean": exact.mean()}
    assert found == {
        f"alignment/user_weight_{label}": pytest.approx(value, rel=1e-5, abs=1e-6)
        for label, value in expected.items()
    }


def test_many_values_are_thinned_but_extremes_and_mean_are_exact(monkeypatch):
    monkeypatch.setattr(summary, "_LARGEST_SORTED", 1000)
    values = torch.rand(10_001, generator=torch.Generator().manual_seed(0))
    values[7] = 5.0
    found = quantiles(values, "w")
    assert found["w_max"] == 5.0
    assert found["w_mean"] == pytest.approx(float(values.mean()))
    assert found["w_p50"] == pytest.approx(0.5, abs=0.08)  # 5 standard deviations of 1000 draws


def test_half_precision_with_gradient_and_nothing():
    assert quantiles(torch.empty(0), "w") == {}
    values = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    assert quantiles(values, "w")["w_p50"] == 1.0


def test_the_table_is_whole_where_there_is_no_terminal():
    stream = io.StringIO()
    metrics = [f"metric_number_{i}_at_20" for i in range(8)]
    scores = {
        "popularity": dict.fromkeys(metrics, 0.01),
        "EGRA": dict.fromkeys(metrics[1:], 0.10394),
    }
    print_table(scores, metrics, title="Test", stream=stream)
    lines = stream.getvalue().splitlines()
    assert lines[0].strip() == "Test"
    assert all(metric in stream.getvalue() for metric in metrics)
    egra = next(line.split() for line in lines if "EGRA" in line)
    assert egra == ["EGRA", "-", *["0.1039"] * 7]
    assert "\x1b" not in stream.getvalue()
