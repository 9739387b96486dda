import pytest

from megasbp.training import config as module
from megasbp.training.config import TrainingConfig


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_what_the_device_multiplies_in_hardware(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    monkeypatch.setattr(module, "computes_bfloat16", lambda device: native)
    assert TrainingConfig(precision="auto").precision == expected  # type: ignore[arg-type]
    assert TrainingConfig(precision="bf16").precision == "bf16"


def test_what_a_run_records_does_not_change_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "computes_bfloat16", lambda device: True)
    recorded = TrainingConfig(precision="auto").model_dump(mode="json")  # type: ignore[arg-type]
    monkeypatch.setattr(module, "computes_bfloat16", lambda device: False)
    assert TrainingConfig(**recorded).precision == "bf16"
