"""The browser of triples: seed, true neighbour, synthetic text; filters, and copied stretches marked."""

from collections.abc import Iterator, Sequence

from megasbp.report.formats import arm_name, number, value_text
from megasbp.report.markup import Markup, element, join
from megasbp.report.schema import Results, Triple
from megasbp.report.sections import section


def browser(results: Results) -> Markup | None:
    """Every triple, and the controls that the page's script brings to life."""
    if not results.triples:
        return None
    words = element(
        "p",
        "A seed, its most similar true neighbour, and what the synthesizer wrote from the seed. A good "
        "document shares the seed's subject and copies neither text. Stretches of eight tokens or more are "
        "marked that stand ",
        element("mark", "in the seed", class_="from-seed"),
        " or ",
        element("mark", "elsewhere in the corpus", class_="from-corpus"),
        ".",
        class_="soft",
    )
    shown = [_triple(one) for one in results.triples]
    return section(
        "triples",
        [element("h2", "Read it yourself"), words, element("div", _controls(), join(shown), id="browser")],
    )


def _controls() -> Markup:
    choices = [("", "All"), ("accepted", "Accepted"), ("dropped", "Dropped")]
    options = (element("option", words, value=value) for value, words in choices)
    return element(
        "div",
        element("button", "\N{LEFTWARDS ARROW} Previous", type="button", id="previous"),
        element("span", id="place", aria_live="polite"),
        element("button", "Next \N{RIGHTWARDS ARROW}", type="button", id="next"),
        element("select", *options, id="verdict-filter", aria_label="Filter by verdict"),
        _number_filter("similarity-filter", "similarity at least", minimum=-1, maximum=1, step=0.05),
        _number_filter("shortest-filter", "words at least", minimum=0, maximum=None, step=10),
        _number_filter("longest-filter", "words at most", minimum=0, maximum=None, step=10),
        element(
            "input",
            type="search",
            id="text-filter",
            placeholder="Find in the texts",
            aria_label="Find in the texts",
        ),
        id="controls",
        class_="controls",
        hidden=True,
    )


def _number_filter(
    identifier: str, words: str, *, minimum: float, maximum: float | None, step: float
) -> Markup:
    field = element("input", type="number", id=identifier, min=minimum, max=maximum, step=step)
    return element("label", words, " ", field)


def _triple(one: Triple) -> Markup:
    length = len(one.synthetic.split())
    texts = [
        ("Seed", one.seed, None),
        ("True neighbour", one.neighbour, None),
        ("Synthetic", _marked(one), "made"),
    ]
    columns = [
        element("div", element("h4", name), element("p", words), class_=kind) for name, words, kind in texts
    ]
    return element(
        "article",
        element("h3", one.seed_title or "Untitled seed"),
        element("div", *_chips(one), element("span", f"{length} words", class_="chip")),
        element("div", *columns, class_="texts"),
        class_="triple",
        data_verdict=_verdict(one),
        data_similarity=one.similarity,
        data_words=length,
    )


def _verdict(one: Triple) -> str:
    return "accepted" if one.accepted else "dropped"


def _chips(one: Triple) -> Iterator[Markup]:
    yield element("span", _verdict(one), class_=f"chip {'yes' if one.accepted else 'no'}")
    if one.arm:
        yield element("span", arm_name(one.arm), class_="chip")
    if one.similarity is not None:
        yield element("span", f"similarity {number(one.similarity, 3)}", class_="chip")
    for name, result in one.filters.items():
        kind = {True: "chip yes", False: "chip no"}[result] if isinstance(result, bool) else "chip"
        words = {True: "passed", False: "failed"}[result] if isinstance(result, bool) else value_text(result)
        yield element("span", f"{name.replace('_', ' ')}: {words}", class_=kind)


def _marked(one: Triple) -> Markup:
    """The synthetic text with its copied stretches marked; the seed's win over the corpus's."""
    pieces = []
    start, text = 0, one.synthetic
    kinds = _kinds(len(text), one.copied.seed, one.copied.corpus)
    for end in range(1, len(text) + 1):
        if end == len(text) or kinds[end] != kinds[start]:
            piece, kind = text[start:end], kinds[start]
            pieces.append(element("mark", piece, class_=kind) if kind else element("span", piece))
            start = end
    return Markup("".join(pieces))


def _kinds(
    length: int, seed: Sequence[tuple[int, int]], corpus: Sequence[tuple[int, int]]
) -> list[str | None]:
    """How each character is marked."""
    kinds: list[str | None] = [None] * length
    for stretches, kind in ((corpus, "from-corpus"), (seed, "from-seed")):
        for first, end in stretches:
            kinds[first:end] = [kind] * len(kinds[first:end])
    return kinds
