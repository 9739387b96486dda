"""The schema: what fits, what is refused and how, and that the document names every key."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fixture import fake_results
from pydantic import BaseModel

from megasbp.errors import InputError
from megasbp.experiment.statistics.intervals import arm_loss, contrast
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.statistics.shares import oracle_share
from megasbp.report import schema, text_schema
from megasbp.report.schema import Contrast, Interval, OracleShare, check_results, read_results

DOCUMENT = Path(__file__).parents[2] / "docs" / "results-schema.md"


def test_a_missing_key_is_named_with_its_place():
    results = fake_results()
    del results["arms"]["sbp"]["ledger"]["matched_tokens"]
    with pytest.raises(InputError, match=r"arms\.sbp\.ledger\.matched_tokens: Field required"):
        check_results(results)


def test_a_value_that_is_no_number_is_refused():
    results = fake_results()
    results["contrasts"]["H1 sbp vs baseline"]["low"] = float("nan")
    with pytest.raises(InputError, match=r"contrasts\.H1 sbp vs baseline\.low"):
        check_results(results)


def test_results_of_another_schema_are_refused():
    with pytest.raises(InputError, match="schema: Input should be 2"):
        check_results(fake_results() | {"schema": 1})


def test_optional_parts_may_be_missing():
    results = fake_results()
    required = {"schema", "name", "recipe_hash", "source", "corpus", "arms"}
    assert check_results({key: results[key] for key in required}).triples == []


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 2}'])
def test_a_file_that_holds_no_results_is_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        read_results(path)


def test_results_survive_a_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(fake_results()))
    assert read_results(path) == fake_results()


def test_the_statistics_fit_the_schema():
    generator = np.random.default_rng(0)
    units, clusters = np.full(30, 100), np.arange(30)
    arms = [HeldOutLosses(dict(enumerate(generator.normal(size=(2, 30)))), units, clusters) for _ in range(3)]

    def through_json(part):
        return json.loads(json.dumps(asdict(part)))

    gain = through_json(contrast(arms[0], arms[1], seed=0, resamples=200))
    names = {"treatment": "sbp", "reference": "baseline", "role": "primary"}
    assert Contrast.model_validate(names | gain).label == "over 2 seeds"
    loss = through_json(arm_loss(arms[0], seed=0, resamples=200))
    assert Interval.model_validate(loss).low == loss["low"]
    share = through_json(oracle_share(arms[0], arms[1], arms[2], seed=0, resamples=200))
    assert OracleShare.model_validate(share).kind == share["kind"]


def test_the_document_names_every_key():
    text = DOCUMENT.read_text()
    found = [*vars(schema).values(), *vars(text_schema).values()]
    parts = [part for part in found if isinstance(part, type) and issubclass(part, BaseModel)]
    keys = {field.alias or name for part in parts for name, field in part.model_fields.items()}
    assert len(keys) > 70
    assert {key for key in keys if f'"{key}"' not in text} == set()
