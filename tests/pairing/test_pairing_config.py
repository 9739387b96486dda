"""The section [pairing]: a source has the settings that it needs, and no others."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from megasbp.errors import InputError
from megasbp.pairing.config import PairingConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "list"}, "source 'list' needs path"),
        ({"source": "links"}, "source 'links' needs path"),
        ({"source": "random"}, "needs random_pairs, how many pairs to draw"),
        ({"path": "pairs.jsonl"}, "path is for source 'list' and 'links', this one is 'neighbours'"),
        ({"source": "continuation", "random_pairs": 5}, "random_pairs is for source 'random'"),
        ({"source": "list", "path": "a", "both_ways": True}, "both_ways is for source 'links'"),
        ({"embedder": "none"}, "source 'neighbours' needs an embedder"),
        ({"source": "nearest"}, "'neighbours', 'list', 'links', 'random' or 'continuation'"),
        ({"minimum_similarity": 0.9, "maximum_similarity": 0.5}, "lies above maximum_similarity"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_mend(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PairingConfig(**settings)


def test_settings_come_back_from_their_own_values() -> None:
    for config in (PairingConfig(), PairingConfig(source="random", random_pairs=7, embedder="none")):
        assert PairingConfig(**config.model_dump()) == config


def test_the_pairs_depend_on_the_settings_of_their_source_alone() -> None:
    assert "source" not in PairingConfig().deciding()
    assert PairingConfig(neighbours=3).deciding() != PairingConfig().deciding()
    first, second = (
        PairingConfig(source="links", path=path, neighbours=neighbours, minimum_similarity=0.1)
        for path, neighbours in (("here/links.tsv", 5), ("there/links.tsv", 6))
    )
    assert first.deciding() == second.deciding()
    assert PairingConfig(source="links", path="here/links.tsv", both_ways=True).deciding() != first.deciding()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    config = PairingConfig(source="list", path=tmp_path / "pairs.jsonl")
    with pytest.raises(InputError, match=r"pairs\.jsonl: no such file; correct pairing\.path"):
        config.file()
    (tmp_path / "pairs.jsonl").touch()
    assert config.file() == tmp_path / "pairs.jsonl"
