"""How much each modality counts."""

from collections.abc import Mapping, Sequence

from egra_dist.errors import UserError


def modality_shares(
    weights: Mapping[str, float], modalities: Sequence[str], section: str
) -> dict[str, float]:
    """Weights of modalities as shares of 1.

    Args:
        weights: By modality; 1 where none is given.
        modalities: Those that there are, at least one.
        section: Where ``modality_weights`` stands in the settings, for the message.

    Returns:
        The share of each modality, in their order.

    Raises:
        UserError: If a weight is given to a modality that there is not, or all are 0.
    """
    unknown = sorted(set(weights) - set(modalities))
    if unknown:
        raise UserError(
            f"{section}.modality_weights: no modality {unknown[0]!r}; there are {list(modalities)}"
        )
    chosen = {name: weights.get(name, 1.0) for name in modalities}
    total = sum(chosen.values())
    if total == 0:
        raise UserError(f"{section}.modality_weights = {dict(weights)}: one must be above 0")
    return {name: weight / total for name, weight in chosen.items()}
