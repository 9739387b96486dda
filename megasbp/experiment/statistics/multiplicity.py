"""Several hypotheses at once."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for the number of hypotheses, in the order given.

    Step-down procedure of Holm ("A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979): a hypothesis is rejected at a level when its adjusted value is at most
    that level.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - position) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
