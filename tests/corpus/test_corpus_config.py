import pytest
from pydantic import ValidationError

from megasbp.corpus.config import CorpusConfig
from megasbp.errors import InputError

SETTINGS = {
    "paths": ["texts"],
    "source": {"name": "demo", "licence": "CC0", "url": "none"},
    "vocabulary_size": 4096,
    "unique": 10,
    "oracle": 20,
    "validation": 5,
    "test": 5,
}


def test_files_are_listed_in_reading_order(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text("x")

    config = CorpusConfig.model_validate({**SETTINGS, "paths": [tmp_path]})

    assert config.files() == [tmp_path / "a.txt", tmp_path / "b.txt"]


def test_a_missing_path_is_found_when_the_files_are_asked_for(tmp_path):
    config = CorpusConfig.model_validate({**SETTINGS, "paths": [tmp_path / "none"]})

    with pytest.raises(InputError, match="no such file or folder"):
        config.files()


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"vocabulary_size": None}, "set exactly one"),
        ({"tokenizer": "tokenizer.json"}, "set exactly one"),
        ({"vocabulary_size": 258}, "greater than or equal to 259"),
        ({"oracle": 9}, "corpus.oracle is 9, below corpus.unique, 10"),
        ({"sep_token": "<sep>"}, "go with corpus.tokenizer"),
        ({"duplicate_threshold": 0.01}, "greater than or equal to 0.05"),
        ({"paths": []}, "corpus.shards is None; set exactly one"),
        ({"unknown": 1}, "Extra inputs"),
    ),
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        CorpusConfig.model_validate({**SETTINGS, **change})
