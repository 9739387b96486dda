import pytest
from pydantic import ValidationError

from megasbp.synthesis.config import SynthesisConfig


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"top_p": 0.0}, "greater than 0"),
        ({"top_p": 1.1}, "less than or equal to 1"),
        ({"temperature": -0.1}, "greater than or equal to 0"),
        ({"temperature": float("nan")}, "finite|greater"),
        ({"slots": 4, "prefill_slots": 5}, r"prefill_slots is 5; allowed: 1 to synthesis.slots \(4\)"),
        ({"slots": 12}, r"slots is 12; allowed: multiples of 8, such as 16"),
        ({"prefill_slots": 3, "prefill_chunk": 12}, r"is 3 x 12; allowed: multiples of 8, such as 3 x 16"),
        ({"maximum_tokens": 16, "minimum_tokens": 16}, "minimum_tokens is 16; allowed: 0 to 15"),
        ({"shard_documents": 100, "draws_together": 8}, r"is 8; allowed: divisors .*shard_documents \(100\)"),
        ({"seed_documents": 0}, "greater than or equal to 1"),
        ({"slotz": 4}, "not permitted"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_is_allowed(setting, message):
    with pytest.raises(ValidationError, match=message):
        SynthesisConfig(**setting)


def test_all_seeds_is_how_corpora_were_named_before_there_was_a_choice():
    assert "seed_documents" not in SynthesisConfig().content()
    assert SynthesisConfig(seed_documents=7).content() == SynthesisConfig().content() | {"seed_documents": 7}
    # Without seed documents there are none to choose from.
    assert SynthesisConfig(seed_documents=7).without_seeds() == SynthesisConfig().without_seeds()
