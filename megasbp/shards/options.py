"""The section [shards] as options of tools, which have no recipe."""

import argparse
from collections.abc import Sequence
from typing import Any

from megasbp.section_settings import section_of_options
from megasbp.shards.config import ShardsConfig


def add_shards_options(
    parser: argparse.ArgumentParser, workers: str, engines: Sequence[str] = ("local", "ray")
) -> None:
    """Adds --engine, --workers and --address.

    Args:
        workers: help of --workers.
        engines: to choose from, the default first.
    """
    parser.add_argument(
        "--engine", choices=engines, default=engines[0], help=f"where shards are made ({engines[0]})"
    )
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    parser.add_argument("--address", help="of a running Ray cluster, with --engine ray; none: one is started")


def chosen_shards(options: argparse.Namespace, **more: Any) -> ShardsConfig:
    """The section that the options make.

    Args:
        more: values of other settings; None for one that is not given.

    Raises:
        InputError: a value is impossible, or two do not agree; the message names the options.
    """
    given = {"engine": options.engine, "workers": options.workers, "address": options.address}
    return section_of_options(ShardsConfig, "shards", given | more)
