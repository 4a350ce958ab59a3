"""What a score is made of."""

import numpy as np
import pytest

from egra_dist.serve.explain import Explainer


def test_parts_add_up_whatever_a_modality_is_called():
    random = np.random.default_rng(0)
    explainer = Explainer.__new__(Explainer)
    shares = {name: random.standard_normal((5, 4)) for name in ("behavior", "image")}
    object.__setattr__(explainer, "_shares", shares)
    parts = explainer._parts(random.standard_normal(4), 3, 1.5)
    assert set(parts) == {"behavior", "behavior (modality)", "image"}
    assert sum(parts.values()) == pytest.approx(1.5)
