"""What a training is named by."""

from egra_dist.config import TrainingSettings
from egra_dist.train.recipe import training_recipe


def test_a_state_that_a_sample_of_users_chose_is_another():
    """It decides which state is the best, and when the training ends."""
    everybody, some, others = (
        training_recipe(TrainingSettings(), 0, num_users) for num_users in (None, 100, 200)
    )
    assert everybody == training_recipe(TrainingSettings(), 0)
    assert some == {**everybody, "num_users": 100}
    assert some != others
