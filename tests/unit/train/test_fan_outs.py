from egra_dist.config import PropagationSettings
from egra_dist.graph.sampler import FanOut
from egra_dist.train.sampled import layer_fan_outs


def test_last_fan_out_holds_for_all_layers_beyond():
    settings = PropagationSettings(user_item=[7, 5, 3], item_item=[4])
    expected = [FanOut(7, 4), FanOut(5, 4), FanOut(3, 4), FanOut(3, 4)]
    assert layer_fan_outs(settings, 4) == expected
    assert layer_fan_outs(settings, 1) == expected[:1]
