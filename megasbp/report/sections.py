"""The sections of the page, from the verdict to the footer."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from megasbp.experiment.arms import ARMS
from megasbp.report import tables, text_tables
from megasbp.report.charts import Line, Range, figure, histogram, interval_chart, line_chart
from megasbp.report.contamination_table import contamination_table
from megasbp.report.domains import domains_table
from megasbp.report.downstream import downstream_table
from megasbp.report.formats import arm_name, arms_in_order, count, gain_name
from megasbp.report.glossary import GLOSSARY
from megasbp.report.judge_table import judge_table
from megasbp.report.markup import Markup, element, join
from megasbp.report.relation_tables import relation_table
from megasbp.report.schema import Contrast, Histogram, Point, Results
from megasbp.report.text_sections import relation_figures
from megasbp.report.topic_tables import shifted_topics_table, topics_table
from megasbp.report.units import quantity
from megasbp.report.verdict import verdict

# A synthesizer is drawn as the arm that it writes for.
_SYNTHESIZER_STYLES = {
    "true": "arm-sbp",
    "random": "arm-random_pairs",
    "continuation": "arm-continuation",
    "second": "arm-second_round",
}


def header(results: Results) -> Markup:
    """The run's name and recipe."""
    recipe = element("span", "recipe ", element("code", results.recipe_hash[:12]), class_="soft")
    return element("header", element("h1", results.name), recipe)


def verdict_card(results: Results) -> Markup:
    """The verdict, the gains with their intervals, and how far the run speaks."""
    found = verdict(results)
    details = element("ul", *(element("li", detail) for detail in found.details)) if found.details else None
    evidence = element("span", f" {found.evidence}.".replace(" .", "."), class_="evidence")
    headline = element("p", found.finding, evidence, class_="headline")
    parts = [element("section", headline, details, class_=f"verdict {found.outcome}", id="verdict")]
    ranges = [_gain(one) for one in results.contrasts.values()]
    if ranges:
        draw = partial(
            _draw_intervals, ranges, "gain, nats per byte of held-out text", "Gains with their intervals"
        )
        caption = (
            "Gain of the first arm over the second with its interval. Right of the line the first arm "
            "predicts held-out text better; an interval across the line is compatible with no difference."
        )
        parts.append(figure(draw, caption))
    if results.gates:
        parts.append(table(text_tables.gates_table(results)))
    if results.what_this_run_can_show:
        title = element("h2", "What this run can and cannot show")
        parts.append(element("section", title, element("p", results.what_this_run_can_show), class_="scope"))
    return join(parts)


def arms(results: Results) -> Markup:
    """Losses, contrasts and learning curves of the arms."""
    parts = [element("h2", "Arms"), table(tables.arms_table(results)), table(tables.meanings_table(results))]
    several = any(len(arm.seeds) > 1 for arm in results.arms.values())
    curves = [
        Line(
            arm_name(name),
            _style(name),
            _points(results.arms[name].curve),
            [(point.low, point.high) for point in results.arms[name].curve] if several else (),
        )
        for name in arms_in_order(results.arms)
        if results.arms[name].curve
    ]
    if curves:
        caption = (
            "Validation loss over the matched budget, lower is better"
            + (": mean over the seeds, and their range as a band" if several else "")
            + ". Compare whole curves: synthetic text may be behind early and ahead late. The steep first "
            "third is cut so that differences show."
        )
        parts.append(figure(partial(_draw_curves, curves, "Learning curves of the arms"), caption))
    best = tables.best_validation_table(results)
    if best.rows:
        parts.append(table(best))
    if results.contrasts:
        parts.append(table(tables.contrasts_table(results)))
    if results.data_efficiency:
        parts.append(table(tables.data_efficiency_table(results)))
    for further in (tables.equal_flops_table(results), domains_table(results)):
        if further.rows:
            parts.append(table(further))
    return section("arms", parts)


def downstream(results: Results) -> Markup | None:
    """Every arm on downstream tasks."""
    if results.downstream is None:
        return None
    title = element("h2", "Downstream tasks")
    return section("downstream", [title, table(downstream_table(results))])


def pairs(results: Results) -> Markup | None:
    """What a pair is worth, and how the pairs were found."""
    parts: list[Markup] = []
    if results.pair_value and results.pair_value.tables:
        ranges = [
            Range(f"{words}, {name.replace('_', ' ')}", style, one.estimate, one.low, one.high)
            for name, entry in results.pair_value.tables.items()
            for words, style, one in (
                ("worth", "arm-sbp", entry.worth),
                ("over another's seed", "arm-baseline", entry.shuffled_gap),
            )
            if one.estimate is not None and one.low is not None and one.high is not None
        ]
        if ranges:
            draw = partial(_draw_intervals, ranges, "nats per token of the target", "What a pair is worth")
            reach = text_tables.value_reach(results.pair_value.tables.values())
            caption = (
                "What the true seed saves on a held-out target. An interval right of the line: the "
                "synthesizer has learned a relation between documents, and not only how documents look."
                + (f" The intervals are {reach}." if reach else "")
            )
            parts.append(figure(draw, caption))
        parts.append(table(text_tables.pair_value_table(results)))
        bins = [
            text_tables.similarity_table(name, entry)
            for name, entry in results.pair_value.tables.items()
            if entry.bins
        ]
        if bins:
            parts.append(element("div", *(table(one) for one in bins), class_="pair"))
    if results.pairing:
        pairing = results.pairing
        origin = text_tables.SOURCE_NAMES.get(pairing.source, pairing.source)
        facts = f"{count(pairing.pairs)} pairs of {results.corpus.unit}s, {origin}"
        facts += "." if pairing.embedder == "none" else f"; similarity by {pairing.embedder}."
        parts += [element("h3", "How the pairs were found"), element("p", facts)]
        for name, reason in pairing.without.items():
            parts.append(element("p", f"No pairs for {name.replace('_', ' ')}: {reason}.", class_="soft"))
        if pairing.similarity_histogram and any(pairing.similarity_histogram.counts):
            draw = partial(_draw_histogram, pairing.similarity_histogram)
            parts.append(
                figure(
                    draw, "Similarity of seed and target in the pair table: inner product of unit vectors."
                )
            )
        for before, degrees in ((True, pairing.in_degree_before_caps), (False, pairing.in_degree)):
            if degrees and any(degrees.counts):
                when = "before the caps" if before else "in the pair table"
                caption = (
                    f"How many documents are the target of how many pairs, {when}. "
                    + ("A long tail to the right: hubs, which the caps cut." if before else "")
                ).strip()
                parts.append(figure(partial(_draw_degrees, degrees, when), caption))
        side = [
            table(tables.drops_table(title, sizes))
            for title, sizes in (
                ("Rows of the file of pairs", pairing.reading),
                ("Candidates that became no pair", pairing.drops),
            )
            if sizes
        ]
        if pairing.hubness:
            side.append(table(text_tables.hubness_table(pairing.hubness, pairing.hubness_before_caps)))
        parts.append(element("div", *side, class_="pair"))
    return section("pairs", [element("h2", "What a pair is worth"), *parts]) if parts else None


def synthetic_text(results: Results) -> Markup | None:
    """Filters and quality, beside the paper's rates."""
    parts = []
    if results.synthesis:
        parts.append(table(text_tables.synthesis_table(results)))
    if results.packing:
        parts.append(table(text_tables.packing_table(results)))
    if results.relation:
        parts.append(table(relation_table(results.relation)))
        parts.append(element("div", *relation_figures(results.relation), class_="pair"))
    if results.topics:
        parts += [table(topics_table(results.topics)), table(shifted_topics_table(results.topics))]
    if results.contamination:
        parts.append(table(contamination_table(results.contamination)))
    if results.judge:
        parts.append(table(judge_table(results.judge)))
    if results.quality:
        parts += [table(text_tables.quality_table(results)), table(text_tables.paper_table())]
    return section("synthetic", [element("h2", "Synthetic text"), *parts]) if parts else None


def ledgers(results: Results) -> Markup:
    """Both ledgers."""
    shown = [table(tables.plans_table(results)), table(tables.flops_table(results))]
    return section("cost", [element("h2", "What it cost: two ledgers"), *shown])


def setting(results: Results) -> Markup:
    """Corpus, model, tuning and configuration."""
    parts = [element("h2", "Setting"), table(tables.splits_table(results))]
    corpus = results.corpus
    reading = [f"Vocabulary of {count(corpus.vocabulary_size)} tokens."]
    if corpus.near_duplicates is not None:
        reading.append(f"{count(corpus.near_duplicates)} documents are near-duplicates of another one.")
    parts.append(element("p", " ".join(reading)))
    if corpus.quarantine:
        parts.append(table(tables.drops_table("Bad documents, set aside", corpus.quarantine)))
    if results.model:
        parts.append(table(tables.facts_table("Model", results.model)))
    trials = tables.trials_table(results)
    if trials.rows:
        parts.append(table(trials))
    curves = [
        Line(
            f"{kind.capitalize()} pairs",
            _SYNTHESIZER_STYLES.get(kind, "arm-other"),
            _points(part.history),
        )
        for kind, part in results.synthesizer.items()
        if part.history
    ]
    if curves:
        caption = "Tuning of the synthesizers: loss of held-out targets given their seed, lower is better."
        parts.append(figure(partial(_draw_curves, curves, "Learning curves of the synthesizers"), caption))
    if results.recipe:
        terms = [
            part
            for key, value in _flatten(results.recipe)
            for part in (element("dt", element("code", key)), element("dd", element("code", value)))
        ]
        parts.append(element("details", element("summary", "The whole recipe"), element("dl", *terms)))
    return section("setting", parts)


def glossary() -> Markup:
    """The terms of the page."""
    terms = [part for term, words in GLOSSARY.items() for part in (element("dt", term), element("dd", words))]
    return section("terms", [element("h2", "Terms"), element("dl", *terms)])


def footer(results: Results, software: Mapping[str, str] | None = None) -> Markup:
    """Where the texts come from and under which licence they stand, and what the results were made with."""
    source = results.source
    # A link only to the web: any other scheme could run code.
    web = source.url.startswith(("https://", "http://"))
    name = element("a", source.name, href=source.url, rel="noreferrer") if web else source.name
    licence = f", {source.licence}" if source.licence else ""
    return element(
        "footer",
        element("p", "Texts on this page are from, or were synthesised from, ", name, f"{licence}."),
        element(
            "p", "Drawn by megasbp from results.json of recipe ", element("code", results.recipe_hash), "."
        ),
        *([element("p", "Results put together with ", _versions(software), ".")] if software else []),
    )


def _versions(software: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in software.items())


def table(content: tables.Table) -> Markup:
    """A table with its title and note."""

    def classes(column: int) -> str | None:
        return "words" if column < content.text_columns else None

    head = element(
        "tr",
        *(
            element("th", name, scope="col", class_=classes(place))
            for place, name in enumerate(content.header)
        ),
    )
    first_total = len(content.rows) - content.total_rows
    rows = []
    for position, row in enumerate(content.rows):
        kind = (
            None if position < first_total else ("total total-first" if position == first_total else "total")
        )
        cells = (element("td", cell, class_=classes(place)) for place, cell in enumerate(row))
        rows.append(element("tr", *cells, class_=kind))
    drawn = element(
        "table", element("caption", content.title), element("thead", head), element("tbody", join(rows))
    )
    note = element("p", content.note, class_="note") if content.note else None
    return element("div", element("div", drawn, class_="scroll"), note)


def section(anchor: str, parts: list[Markup]) -> Markup:
    """A section of the page that links can lead to."""
    return element("section", join(parts), id=anchor)


def _style(arm: str) -> str:
    return f"arm-{arm}" if arm in ARMS else "arm-other"


def _gain(one: Contrast) -> Range:
    return Range(
        gain_name(one.treatment, one.reference), _style(one.treatment), one.estimate, one.low, one.high
    )


def _points(history: Iterable[Point]) -> list[tuple[float, float]]:
    return [(point.tokens, point.validation_loss) for point in history]


def _draw_intervals(ranges: list[Range], x_label: str, title: str, width: int) -> Markup:
    return interval_chart(ranges, width, x_label=x_label, title=title)


def _draw_curves(curves: list[Line], title: str, width: int) -> Markup:
    labels = {"x_label": "training tokens", "y_label": "validation loss, nats per token"}
    return line_chart(curves, width, x_text=quantity, title=title, **labels)


def _draw_histogram(shown: Histogram, width: int) -> Markup:
    # Only from the first to the last filled bin: similarities fill a small part of [-1, 1].
    filled = [position for position, size in enumerate(shown.counts) if size]
    first, last = filled[0], filled[-1]
    edges, counts = shown.edges[first : last + 2], shown.counts[first : last + 1]
    labels = {"x_label": "similarity", "y_label": "Pairs", "title": "Similarity of the pairs"}
    return histogram(edges, counts, width, **labels)


def _draw_degrees(shown: Histogram, when: str, width: int) -> Markup:
    labels = {"x_label": "pairs per target", "y_label": "Documents", "title": f"Pairs per target, {when}"}
    return histogram(shown.edges, shown.counts, width, **labels)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)
