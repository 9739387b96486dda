"""The sections of the page on what the synthetic text is."""

from megasbp.report.charts import NARROW, histogram
from megasbp.report.markup import Markup, element
from megasbp.report.relation_tables import kind_name, kinds_in_order
from megasbp.report.schema_parts import Histogram
from megasbp.report.text_schema import Relation


def relation_figures(relation: Relation) -> list[Markup]:
    """The similarity of each kind of text to its seed, on one axis: small charts, to stand side by side."""
    shown = [kind for kind in kinds_in_order(relation) if any(relation.kinds[kind].histogram.counts)]
    filled = [
        place for kind in shown for place, size in enumerate(relation.kinds[kind].histogram.counts) if size
    ]
    if not filled:
        return []
    bins = slice(min(filled), max(filled) + 1)
    return [_similarity_figure(relation.kinds[kind].histogram, bins, kind_name(kind)) for kind in shown]


def _similarity_figure(shown: Histogram, bins: slice, name: str) -> Markup:
    title = f"{name}: similarity to the seed"
    labels = {"x_label": "similarity to the seed", "y_label": "Documents", "title": title}
    edges = shown.edges[bins.start : bins.stop + 1]
    drawn = histogram(edges, shown.counts[bins], NARROW, **labels)
    return element("figure", drawn, element("figcaption", f"{title}."))
