import pytest
from model_world import small_config
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kv_heads": 4},
            "model.kv_heads is 4, .* model.heads 6; the nearest legal value is 3",
        ),
        ({"kv_heads": 50}, "nearest legal value is 6"),
        ({"head_dim": 15}, "model.head_dim is 15.*nearest legal value is 16"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"rope_theta": float("inf")}, "finite"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_impossible_shapes_are_refused_with_the_mend(change, message):
    with pytest.raises(ValidationError, match=message):
        small_config(**change)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        small_config().width = 5
