"""How a training step gathers what is around its batch."""

from typing import Annotated, Literal

from pydantic import Field

from egra_dist.config.base import PositiveInt, Settings

FanOuts = Annotated[list[PositiveInt], Field(min_length=1)]


class PropagationSettings(Settings):
    """How far a training step looks around itself."""

    mode: Literal["exact", "sampled"] = "exact"
    """Over the whole graph in every step, or over sampled neighbourhoods of the batch's nodes."""
    user_item: FanOuts = [10, 5]
    """Most items of a user, and users of an item, that a node gathers from in each layer; the last
    number holds for all layers beyond. Where there are no more, all are taken."""
    item_item: FanOuts = [5, 3]
    """The same for item-item edges."""
    modality_items: PositiveInt = 10
    """Most items that a user gathers modalities from."""
    feature_neighbors: PositiveInt = 10
    """Most neighbours in a feature graph that an item gathers a modality from."""

    def fan_outs(self, layer: int) -> tuple[int, int]:
        """``user_item`` and ``item_item`` of a layer."""
        of_both, of_items = (
            numbers[min(layer, len(numbers) - 1)] for numbers in (self.user_item, self.item_item)
        )
        return of_both, of_items
