import pytest

from megasbp.report.units import quantity


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1_234_567, "1.235M"),
        (999_999, "1M"),
        (3.02e9, "3.02G"),
        (0.5, "0.5"),
    ],
)
def test_quantity(value: float, shown: str) -> None:
    assert quantity(value) == shown
