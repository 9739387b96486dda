"""The page: well-formed, self-contained, escaped, deterministic."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from fixture import fake_results

from megasbp.errors import InputError
from megasbp.report.page import page, write_page

VOID = {"meta", "input", "br", "hr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute stands twice in <{tag}>"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def words(self):
        return "".join(data for tag, data in self.texts if tag not in ("script", "style"))


def test_every_tag_is_closed_and_every_identifier_is_unique():
    reader = Reader(page(fake_results()))
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = {attributes["href"] for tag, attributes in reader.tags if tag == "a"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(identifiers)


def test_nothing_is_loaded_from_anywhere():
    html = page(fake_results())
    reader = Reader(html)
    assert {tag for tag, _ in reader.tags} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "image",
        "use",
    } == set()
    assert [attributes for _, attributes in reader.tags if "src" in attributes or "style" in attributes] == []
    assert "@import" not in html
    assert {match[:5] for match in re.findall(r"url\(([^)]*)", html)} == {"#clip"}
    web = [attributes.get("href") for tag, attributes in reader.tags if "http" in str(attributes.get("href"))]
    # The one link out is the text's source, followed only when clicked.
    assert web == ["https://example.org/lead-sections"]


def test_the_browser_is_told_to_run_this_script_only():
    html = page(fake_results())
    reader = Reader(html)
    script = next(data for tag, data in reader.texts if tag == "script")
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def hostile(value, place=""):
    """Puts HTML into every free text and every free name of the results."""
    fixed = {"kind", "treatment", "reference", "role", "arm"}
    named = {
        "splits",
        "drops",
        "reasons",
        "flops",
        "tables",
        "losses",
        "filters",
        "recipe",
        "model",
        "hubness",
    }
    if isinstance(value, dict):
        rename = place in named
        return {(f"{key}{HOSTILE}" if rename else key): hostile(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [hostile(part, place) for part in value]
    return HOSTILE if isinstance(value, str) and place not in fixed else value


def test_html_in_the_data_stays_text():
    plain, attacked = Reader(page(fake_results())), Reader(page(hostile(fake_results())))
    # The source's address is no longer a link; longer names may leave a chart room for fewer ticks, another
    # text has other stretches to mark. Nothing else about the page's elements may change.
    ticks = {"line", "text", "mark", "span"}
    expected = [tag for tag, attributes in plain.tags if not str(attributes.get("href")).startswith("http")]
    found = [tag for tag, _ in attacked.tags if tag not in ticks]
    assert found == [tag for tag in expected if tag not in ticks]
    assert [name for _, attributes in attacked.tags for name in attributes if name.startswith("on")] == []
    # Names, titles, texts, reasons, settings: the words arrive as they are.
    assert attacked.words().count(HOSTILE) > 100


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "ftp://example.org", ""])
def test_only_web_addresses_become_links(url):
    results = fake_results()
    results["source"]["url"] = url
    reader = Reader(page(results))
    assert all(attributes["href"].startswith("#") for tag, attributes in reader.tags if tag == "a")
    assert "Wikipedia lead sections, CC BY-SA 4.0." in reader.words()


def test_equal_results_give_equal_bytes(tmp_path):
    write_page(fake_results(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page(fake_results()).encode()


def test_it_says_what_the_results_were_made_with():
    software = {"Python": "3.11.2", "torch": "2.10.0"}
    assert (
        "Results put together with Python 3.11.2, torch 2.10.0."
        in Reader(page(fake_results(), software)).words()
    )
    assert "put together" not in Reader(page(fake_results())).words()


def test_it_shows_the_verdict_the_scope_and_every_section():
    reader = Reader(page(fake_results(seeds=1, gain=-0.002, half=0.004, p=0.3)))
    words = reader.words()
    assert "SBP did not beat the baseline: the difference of −0.0020 nats per byte" in words
    assert "conditional on this run" in words
    assert "it cannot show what happens at billions of parameters." in words
    sections = {attributes.get("id") for tag, attributes in reader.tags if tag == "section"}
    assert sections >= {"verdict", "arms", "pairs", "synthetic", "triples", "cost", "setting", "terms"}
    assert "The paper's own rates, at its own scale" in words


def test_every_triple_is_there_with_its_verdict():
    reader = Reader(page(fake_results()))
    shown = [attributes["data-verdict"] for tag, attributes in reader.tags if tag == "article"]
    assert (shown.count("accepted"), shown.count("dropped")) == (6, 3)
    assert "The valley of River 8 is a protected area." in reader.words()
    # Only the script can browse, so without it the controls are hidden and the triples are not.
    controls = next(attributes for _, attributes in reader.tags if attributes.get("id") == "controls")
    assert "hidden" in controls


def test_a_run_with_the_baseline_alone_is_drawn():
    results = fake_results() | {
        "contrasts": {},
        "oracle_share": None,
        "quality": {},
        "synthesis": {},
        "triples": [],
    }
    results["arms"] = {"baseline": results["arms"]["baseline"]}
    results["data_efficiency"] = None
    for part in (
        "pair_value",
        "pairing",
        "tuning",
        "synthesizer",
        "relation",
        "topics",
        "contamination",
        "judge",
    ):
        del results[part]
    reader = Reader(page(results))
    sections = {attributes.get("id") for tag, attributes in reader.tags if tag == "section"}
    assert sections & {"pairs", "synthetic", "triples"} == set()
    assert "This run did not compare SBP with the baseline." in reader.words()


def test_in_degrees_are_drawn_and_what_the_source_lacks_is_said():
    results = fake_results()
    results["pairing"] |= {
        "source": "links",
        "embedder": "none",
        "reading": {"rows": 12_345, "unknown": 67},
        "without": {"new target": "links.tsv has no such pair"},
    }
    del results["pair_value"], results["pairing"]["similarity_histogram"]
    reader = Reader(page(results))
    charts = [attributes["aria-label"] for tag, attributes in reader.tags if tag == "svg"]
    assert charts.count("Pairs per target, before the caps") == 2  # wide and narrow
    assert charts.count("Pairs per target, in the pair table") == 2
    assert "Similarity of the pairs" not in charts
    words = reader.words()
    assert "7,012 pairs of documents, from a link graph." in words
    assert "No pairs for new target: links.tsv has no such pair." in words
    assert "12,345" in words


def test_other_results_are_refused():
    with pytest.raises(InputError, match="name: Field required"):
        page({"schema": 2})
