"""[shards] as options of a command line: what is impossible is one line that names the option."""

import argparse

import pytest

from megasbp.errors import InputError
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.options import add_shards_options, chosen_shards


def chosen(*arguments: str, gpus: float | None = None) -> ShardsConfig:
    parser = argparse.ArgumentParser()
    add_shards_options(parser, "processes", engines=("inline", "local", "ray"))
    return chosen_shards(parser.parse_args(arguments), gpus=gpus)


def test_options_make_the_section():
    assert chosen() == INLINE
    assert chosen("--engine", "local") == ShardsConfig()
    expected = ShardsConfig(engine="ray", workers=3, address="auto", gpus=0.5)
    assert chosen("--engine", "ray", "--workers", "3", "--address", "auto", gpus=0.5) == expected


@pytest.mark.parametrize(
    ("arguments", "gpus", "message"),
    [
        (
            ["--engine", "local", "--workers", "0"],
            None,
            "--workers: Input should be greater than or equal to 1",
        ),
        (["--engine", "local"], -1.0, "--gpus: Input should be greater than or equal to 0, not -1.0"),
        (["--engine", "local"], 1.5, "--gpus is 1.5; allowed: 0, a part of one GPU, or a whole number"),
        (["--engine", "local"], float("nan"), "--gpus: Input should be a finite number"),
        (["--engine", "local", "--address", "auto"], None, "--address is 'auto' and --engine is \"local\""),
        (["--engine", "ray", "--address", ""], None, "--address: String should have at least 1 character"),
        (["--workers", "2"], None, '--workers is 2 and --engine is "inline"'),
        (["--workers", "0"], None, "--workers: Input should be greater than or equal to 1"),
        ([], 1.0, '--gpus is 1.0 and --engine is "inline"'),
    ],
)
def test_impossible_options_are_named(arguments, gpus, message):
    with pytest.raises(InputError) as refused:
        chosen(*arguments, gpus=gpus)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
