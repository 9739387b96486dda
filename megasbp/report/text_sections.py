"""The sections of the page on what the synthetic text is."""

from functools import partial

from megasbp.report.charts import figure, histogram
from megasbp.report.markup import Markup
from megasbp.report.relation_tables import kind_name, kinds_in_order
from megasbp.report.schema_parts import Histogram
from megasbp.report.text_schema import Relation


def relation_figures(relation: Relation) -> list[Markup]:
    """The similarity of each kind of text to its seed, on one axis."""
    shown = [kind for kind in kinds_in_order(relation) if any(relation.kinds[kind].histogram.counts)]
    filled = [
        place for kind in shown for place, size in enumerate(relation.kinds[kind].histogram.counts) if size
    ]
    if not filled:
        return []
    bins = slice(min(filled), max(filled) + 1)
    return [
        figure(
            partial(_draw_similarity, relation.kinds[kind].histogram, bins, kind_name(kind)),
            f"{kind_name(kind)}: similarity to the seed.",
        )
        for kind in shown
    ]


def _draw_similarity(shown: Histogram, bins: slice, name: str, width: int) -> Markup:
    labels = {
        "x_label": "similarity to the seed",
        "y_label": "Documents",
        "title": f"{name}: similarity to the seed",
    }
    edges = shown.edges[bins.start : bins.stop + 1]
    return histogram(edges, shown.counts[bins], width, **labels)
