"""Arms that a recipe asks for: they change nothing of a finished run, and pay for what they use."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import environment, megasbp_command, published
from kills import run_and_kill
from small_run import write_recipe

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.experiment.arms import ARMS
from megasbp.storage import read_manifest

ALL = f"budget.arms={list(ARMS)}"
NEW = {"continuation", "in_context", "seed_packing", "second_round"}


def copy_of(finished_run: Path, corpus: Path, folder: Path) -> Path:
    """A copy of the finished run; its recipe there."""
    shutil.copytree(finished_run / "runs", folder / "runs")
    return write_recipe(folder, corpus)


@pytest.fixture(scope="module")
def run(finished_run: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the finished run with every arm there is, and what was printed while they were added."""
    folder = tmp_path_factory.mktemp("more")
    command = megasbp_command("run", str(copy_of(finished_run, corpus, folder)), ALL)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "runs" / "small", done.stdout


@pytest.fixture(scope="module")
def results(run: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((run[0] / "report" / "results.json").read_text())


def stage(run: tuple[Path, str], name: str) -> Path:
    """The folder of a finished stage."""
    (folder,) = (run[0] / "seed-0").glob(f"{name}-{10 * '?'}")
    return folder


def test_arms_that_are_added_leave_every_stage_that_was_there(run: tuple[Path, str]) -> None:
    started = {line.partition(":")[0] for line in run[1].splitlines() if line.endswith(": started")}
    assert started == {
        "units-continuation",
        "seed-0/pairs-continuation",
        "seed-0/synthesizer-continuation",
        "seed-0/synthesis-continuation",
        "seed-0/quality-continuation",
        "seed-0/packed-in_context",
        "seed-0/packed-seed_packing",
        "seed-0/synthesizer-second",
        "seed-0/synthesis-second_round",
        "seed-0/quality-second_round",
        "seed-0/gate-second_round",
        # It judges all synthetic text of the first round; no arm is trained from it.
        "seed-0/gates",
        # These compare all synthetic text of the recipe, too.
        "seed-0/embed-continuation",
        "seed-0/embed-second_round",
        *(f"seed-0/{measure}" for measure in ("relation", "topics", "duplicates", "sharing")),
        *(f"seed-0/{kind}-{arm}" for kind in ("train", "losses", "losses-best") for arm in NEW),
    }


def test_every_arm_has_the_matched_budget_and_its_comparison(results: dict[str, Any]) -> None:
    assert set(results["arms"]) == {*ARMS, "baseline_x2"}
    assert {arm["ledger"]["matched_tokens"] for arm in results["arms"].values()} == {40_960}
    compared = results["contrasts"]
    assert "second_round vs sbp" in compared
    assert {"sbp vs continuation", "sbp vs in_context", "seed_packing vs sbp"} <= set(compared)
    assert {f"{arm} vs baseline" for arm in NEW} <= set(compared)
    assert {name for name, one in compared.items() if one["p_holm"] is not None} == {
        "H2 sbp vs self_samples",
        "H3 sbp vs random_pairs",
    }


def test_the_ledgers_count_what_an_arm_uses(results: dict[str, Any]) -> None:
    flops = {arm: set(entry["ledger"]["flops"]) for arm, entry in results["arms"].items()}
    own = {"final training", "sweeps"}
    writing = {"initial pretraining", "decoding"}
    tuned = {"synthesizer tuning", "prefill", *writing}
    search = {"embedding", "search"}
    assert flops["baseline"] == flops["oracle"] == own
    assert flops["self_samples"] == own | writing
    assert flops["continuation"] == own | tuned
    assert flops["in_context"] == own | search
    assert flops["sbp"] == flops["random_pairs"] == flops["seed_packing"] == own | tuned | search
    assert flops["second_round"] == own | tuned | {"first round"}
    arms = results["arms"]
    first, second = (arms[arm]["ledger"] for arm in ("sbp", "second_round"))
    assert second["flops"]["first round"] == first["total_flops_owned"] - first["flops"]["sweeps"]
    assert arms["seed_packing"]["ledger"]["flops"] == arms["sbp"]["ledger"]["flops"]


def test_the_second_rounds_synthesizer_starts_from_sbp_and_its_gate_is_asked(
    run: tuple[Path, str], results: dict[str, Any]
) -> None:
    trained, first, second = (
        read_manifest(stage(run, name)) for name in ("train-sbp", "synthesizer-true", "synthesizer-second")
    )
    assert trained and first and second
    assert first.inputs["pairs"] == second.inputs["pairs"]
    assert second.inputs["baseline"] == trained.digest != first.inputs["baseline"]
    gates = {gate["name"]: gate for gate in results["gates"]["0"]}
    losses = (results["synthesizer"][kind]["best_validation_loss"] for kind in ("true", "second"))
    text = (results["quality"][arm]["distinct"]["4"] for arm in ("sbp", "second_round"))
    (loss, other_loss), (distinct, other_distinct) = losses, text
    assert gates["second round"]["open"] == (other_loss < loss and 1 - other_distinct / distinct <= 0.05)


def test_continuation_writes_from_the_seed_documents_of_sbp(run: tuple[Path, str]) -> None:
    first, second = (
        pq.read_table(stage(run, f"synthesis-{arm}") / "provenance.parquet", columns=["seed_doc"])
        for arm in ("sbp", "continuation")
    )
    rows = min(len(first), len(second))
    assert first[:rows].equals(second[:rows])


def test_seed_packing_holds_the_synthetic_text_of_sbp_beside_its_seeds(
    run: tuple[Path, str], results: dict[str, Any]
) -> None:
    rows = IndexedDataset(stage(run, "packed-seed_packing") / "seeded")
    synthetic = IndexedDataset(stage(run, "synthesis-sbp") / "synthetic")
    packing, plan = results["packing"]["seed_packing"], results["arms"]["seed_packing"]["plan"]
    # All of the last document is read, so up to one document more than sbp reads.
    need = results["arms"]["sbp"]["plan"]["tokens_per_source"]["synthetic"]
    assert need <= packing["target_tokens"] < need + synthetic.lengths.max()
    assert packing["target_tokens"] == synthetic.lengths[: packing["pairs"]].sum()
    assert plan["synthetic_share"] == packing["target_tokens"] / 40_960
    assert rows.tokens == plan["tokens_per_source"]["seeded"] == 64 * packing["rows"]
    assert np.isin(np.arange(64, rows.tokens + 1, 64), np.cumsum(rows.lengths)).all()


def pairs_in(rows: IndexedDataset) -> Iterator[tuple[list[int], list[int]]]:
    """`bos d1` as far as it is there, and `d2 eos` likewise, of each pair in the rows."""
    separator = rows.special_token("sep")
    for number in range(len(rows)):
        tokens = rows.document(number).tolist()
        if separator in tokens:
            place = tokens.index(separator)
            yield tokens[:place], tokens[place + 1 :]


def is_pair(found: tuple[list[int], list[int]], seed: np.ndarray, target: np.ndarray) -> bool:
    first, second = found
    return first == seed[:-1].tolist()[: len(first)] and second == target[1:].tolist()[: len(second)]


def test_a_synthetic_document_stands_beside_its_own_seed(run: tuple[Path, str]) -> None:
    (datasets,) = run[0].glob("datasets-*")
    unique = IndexedDataset(datasets / "unique")
    synthetic = IndexedDataset(stage(run, "synthesis-sbp") / "synthetic")
    rows = pq.read_table(stage(run, "synthesis-sbp") / "provenance.parquet").to_pylist()
    of_document = {row["document"]: row["seed_doc"] for row in rows if row["accepted"]}
    missing = {tuple(synthetic.document(number)): seed for number, seed in of_document.items()}
    for found in pairs_in(IndexedDataset(stage(run, "packed-seed_packing") / "seeded")):
        whole = next(one for one in missing if is_pair(found, unique.document(missing[one]), np.array(one)))
        del missing[whole]


def test_in_context_holds_pairs_of_the_table(run: tuple[Path, str]) -> None:
    (datasets,) = run[0].glob("datasets-*")
    unique = IndexedDataset(datasets / "unique")
    table = pq.read_table(stage(run, "pairs") / "train.parquet").to_pylist()
    pairs = {(row["seed_doc"], row["target_doc"]) for row in table}
    for found in pairs_in(IndexedDataset(stage(run, "packed-in_context") / "neighbours")):
        pairs.remove(next(one for one in pairs if is_pair(found, *map(unique.document, one))))


def test_in_context_reads_real_text_alone(results: dict[str, Any]) -> None:
    plan = results["arms"]["in_context"]["plan"]
    assert plan["synthetic_share"] == 0
    sbp = results["arms"]["sbp"]["plan"]["tokens_per_source"]
    assert plan["tokens_per_source"] == {"unique": sbp["unique"], "neighbours": sbp["synthetic"]}


@pytest.mark.slow
def test_kills_change_no_byte_of_the_results(
    run: tuple[Path, str], finished_run: Path, corpus: Path, tmp_path: Path
) -> None:
    command = megasbp_command("run", str(copy_of(finished_run, corpus, tmp_path)), ALL)
    kills = run_and_kill(command, [4.5, 5, 5.5], environment(), tmp_path / "output.txt")
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert kills == 3, "the run ended before it could be killed often enough"
    assert published(tmp_path / "runs" / "small") == published(run[0])
