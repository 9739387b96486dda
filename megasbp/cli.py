"""The command line: `megasbp VERB ...`."""

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from megasbp import __version__
from megasbp.command import run_command
from megasbp.errors import InputError

if TYPE_CHECKING:
    from megasbp.experiment.recipe import Recipe
    from megasbp.experiment.sweep import Variant

    _Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Synthetic Bootstrapped Pretraining: pair the documents of a corpus, tune a synthesizer p(d2 | d1) on the
pairs, sample a synthetic corpus from it, and train on real + synthetic text against matched baselines.

  megasbp plan configs/demo.toml        what the recipe will do, by arithmetic
  megasbp run configs/demo.toml         all of it; a rerun does only what is missing or changed
  megasbp run configs/demo.toml budget.tokens_per_arm=2_000_000 training.learning_rate=3e-3
  megasbp sweep configs/demo.toml synthesis.temperature=[0.8,1.0]
  megasbp run RECIPE --launcher slurm   the same as jobs of Slurm, each stage on what [cluster] gives it
  megasbp train configs/sbp_3b_200b.toml --dry-run --memory 141
  torchrun --nproc-per-node 8 -m megasbp stage RECIPE seed-0/train-sbp
"""


# GiB of the GPU that a dry run has in mind where none is named.
_GPU_MEMORY = 80.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0, 1 for a failed run, 2 for what the user can mend."""
    options = _parse(arguments)
    # Before torch is loaded: its CPU threads spin long while they wait, and beside any other busy process
    # that slowed training 70 times. A short spin costs about 15% on a quiet machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    return run_command("megasbp", options.verb, options, "finished stages")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes a list of positional arguments in one piece; overrides may also follow an option."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others and (not hasattr(options, "overrides") or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        options.overrides += others
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="megasbp", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"megasbp {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_run(verbs)
    _add_sweep(verbs)
    _add_plan(verbs)
    _add_stage(verbs)
    _add_train(verbs)
    _add_report(verbs)
    _add_clean(verbs)
    _add_doctor(verbs)
    return parser


def _add_run(verbs: "_Verbs") -> None:
    run = verbs.add_parser(
        "run", help="run a recipe: every stage that is missing or changed, then the report"
    )
    _add_recipe(run)
    run.add_argument(
        "--until",
        action="append",
        metavar="STAGE",
        help="make this stage and what it needs, no more; may be given several times: --until datasets",
    )
    _add_jobs(run)
    run.add_argument(
        "--launcher",
        choices=("torchrun", "slurm"),
        help="start each stage on what the recipe's section [cluster] gives its kind: with torchrun type the "
        "same command on every host, with slurm once where jobs are submitted",
    )
    run.add_argument("--node-rank", type=int, metavar="K", help="torchrun: which host this is (default: 0)")
    run.add_argument(
        "--rdzv-endpoint", metavar="HOST:PORT", help="torchrun: where the hosts meet: host 0 and a free port"
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="make nothing: list the parts and which are finished; with a launcher print what it would start",
    )
    run.set_defaults(verb=_run)


def _add_sweep(verbs: "_Verbs") -> None:
    sweep = verbs.add_parser(
        "sweep",
        help="run a recipe at every combination of some settings, e.g. synthesis.temperature=[0.8,1.0]",
        description="Runs a recipe at every combination of the settings that are given a list: "
        "`megasbp sweep configs/demo.toml budget.synthetic_share=[0.1,0.2,0.375] "
        "pairing.minimum_similarity=[0.4,0.5]`. Stages that do not depend on a setting are made once. "
        "Results go to RUN/sweep, a folder for each combination, and a table and a page of all, which grow "
        "with each that is finished and keep those of earlier sweeps whose other settings are the same; the "
        "run's own report stays. Run the same command again after a stop. Of a setting that is a list itself "
        "give a list of lists. Settings that go together are a list of tables of their section: "
        """`pairing=[{source="neighbours"},{source="random",random_pairs=5000}]`: each table's settings """
        "replace the recipe's one by one, and the section's others stay.",
    )
    _add_recipe(sweep)
    _add_jobs(sweep)
    sweep.add_argument("--dry-run", action="store_true", help="list the combinations, and run nothing")
    sweep.set_defaults(verb=_sweep)


def _add_plan(verbs: "_Verbs") -> None:
    plan = verbs.add_parser(
        "plan", help="print parameters, tokens, epochs, steps, FLOPs and disk of a recipe"
    )
    _add_recipe(plan)
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plan.set_defaults(verb=_plan)


def _add_stage(verbs: "_Verbs") -> None:
    stage = verbs.add_parser(
        "stage",
        help="make one stage whose earlier ones are finished (train-*, synthesizer-*, pair-value and "
        "losses under torchrun too)",
    )
    stage.add_argument("recipe", type=Path, help="a recipe, e.g. configs/demo.toml")
    stage.add_argument("stage", metavar="STAGE", help="e.g. corpus, seed-0/train-sbp, report")
    _add_overrides(stage)
    stage.set_defaults(verb=_stage)


def _add_train(verbs: "_Verbs") -> None:
    train = verbs.add_parser("train", help="train one arm: the stage train-ARM of a seed")
    _add_recipe(train)
    train.add_argument("--arm", help="one of the recipe's budget.arms, e.g. sbp")
    train.add_argument(
        "--seed", type=int, default=None, help="one of the recipe's seeds (default: its first)"
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: print each rank's parameters, memory, FLOPs and communication, by arithmetic",
    )
    train.add_argument(
        "--gpus",
        type=_counts,
        metavar="N,N",
        help="of --dry-run: numbers of GPUs (those of the recipe's cluster.training)",
    )
    train.add_argument("--memory", type=float, metavar="GIB", help="of --dry-run: memory of a GPU (80)")
    train.add_argument("--json", action="store_true", help="of --dry-run: print JSON instead of tables")
    train.set_defaults(verb=_train)


def _add_report(verbs: "_Verbs") -> None:
    report = verbs.add_parser(
        "report",
        help="draw the table and the page of a finished run again, or of what is complete of a recipe",
        description="Of a run's folder: draws the table and the page again from its results.json. Of a "
        "recipe that is still running or was stopped: the results of those arms and seeds that are complete, "
        "in report/partial below the run's folder; nothing is trained for it.",
    )
    report.add_argument("run", type=Path, help="a run's folder, e.g. runs/demo, or a recipe")
    _add_overrides(report)
    report.set_defaults(verb=_report)


def _add_clean(verbs: "_Verbs") -> None:
    clean = verbs.add_parser("clean", help="remove what a run's current results do not need")
    clean.add_argument("run", type=Path, help="the run's folder, e.g. runs/demo")
    clean.add_argument("--all", action="store_true", help="remove the whole run, its report included")
    clean.add_argument("--dry-run", action="store_true", help="only list what would go")
    clean.set_defaults(verb=_clean)


def _add_doctor(verbs: "_Verbs") -> None:
    doctor = verbs.add_parser("doctor", help="check this installation: versions, extension, kernels, GPU")
    doctor.set_defaults(verb=_doctor)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a recipe, e.g. configs/demo.toml")
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="settings that replace the recipe's, e.g. training.micro_batch=8",
    )


def _add_jobs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="make up to N independent parts side by side on this machine: arms, trials, learning rates, "
        "seeds. Models that do not fill a GPU share it: raise N while nvidia-smi shows idle time and memory. "
        "On a CPU keep N x the recipe's threads within the cores (default: 1)",
    )


def _jobs(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: is the number of workers, at least 1")
    return options.jobs


def _run(options: argparse.Namespace) -> int:
    from megasbp.experiment.recipe import load_recipe
    from megasbp.experiment.run import run_experiment
    from megasbp.report.plan_table import print_plan

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "`megasbp run` is one process; under torchrun use `megasbp stage RECIPE STAGE`, or let "
            "`megasbp run RECIPE --launcher torchrun` start the ranks"
        )
    jobs = _jobs(options)
    recipe = load_recipe(options.recipe, options.overrides)
    if options.launcher is not None:
        if jobs > 1:
            raise InputError(
                f"--jobs {jobs}: is for one machine; leave it out with --launcher, which starts each "
                "part on what [cluster] gives it"
            )
        return _launch(options, recipe)
    for name, value in (("--node-rank", options.node_rank), ("--rdzv-endpoint", options.rdzv_endpoint)):
        if value is not None:
            raise InputError(f"{name} {value}: is for several hosts; add --launcher torchrun")
    if options.dry_run:
        return _list_parts(recipe, options.until)
    if jobs == 1:
        run_experiment(recipe, _announce, print_plan, options.until)
    else:
        from megasbp.experiment.side_by_side import run_side_by_side

        given = (options.recipe, options.overrides, jobs)
        run_side_by_side(recipe, *given, _announce, print_plan, options.until)
    if options.until is None:
        _draw(recipe.folder)
    else:
        print(f"stopped after {', '.join(options.until)}, as asked")
    return 0


def _list_parts(recipe: "Recipe", until: Sequence[str] | None) -> int:
    from megasbp.experiment.parts import parts_until
    from megasbp.experiment.run import Finished, require_inputs

    wanted, finished = parts_until(recipe, until), Finished(recipe)
    require_inputs(recipe, wanted)
    for part in wanted:
        _announce(f"{'done before, kept' if finished(part) else 'to be made':18s} {part.name}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from megasbp.experiment.sweep import describe, read_sweep, run_sweep
    from megasbp.report.plan_table import print_plan
    from megasbp.report.sweep_page import write_sweep
    from megasbp.report.write import write_report

    jobs, variants = _jobs(options), read_sweep(options.recipe, options.overrides)
    if options.dry_run:
        for variant in variants:
            print(f"{variant.folder}  {describe(variant.settings)}")
        return 0

    def finished(variant: "Variant", sweep: Path) -> None:
        # First the page of all, to which the other one has a link.
        write_sweep(sweep)
        write_report(variant.results)

    path = run_sweep(options.recipe, variants, jobs, _announce, print_plan, finished)
    print(path.with_name("table.txt").read_text(encoding="utf-8"), end="")
    print(f"report: {path.with_name('report.html')}")
    return 0


def _launch(options: argparse.Namespace, recipe: "Recipe") -> int:
    from megasbp.experiment.jobs import finished_jobs, recipe_jobs
    from megasbp.experiment.parts import parts_until
    from megasbp.experiment.run import require_inputs
    from megasbp.launch import slurm, torchrun
    from megasbp.shards.lock import folder_lock

    jobs = recipe_jobs(recipe, options.recipe, options.overrides, options.until)
    scripts = recipe.folder / "slurm"
    if options.dry_run:
        for job in jobs:
            _announce(
                slurm.script(job, recipe.cluster, recipe.name, scripts)
                if options.launcher == "slurm"
                else torchrun.describe(job)
            )
        return 0
    require_inputs(recipe, parts_until(recipe, options.until))
    finished = finished_jobs(recipe)
    if options.launcher == "slurm":
        left = [job for job in jobs if not finished(job)]
        for name, number in slurm.submit(left, recipe.cluster, recipe.name, scripts).items():
            _announce(f"{number}  {name}")
        return 0
    host = torchrun.Host(options.node_rank or 0, options.rdzv_endpoint)
    # One such run at a time; the other hosts only do what host 0 does.
    with folder_lock(recipe.folder) if host.rank == 0 else nullcontext():
        torchrun.run_jobs(jobs, host, recipe.cluster, finished, _announce)
    return 0


def _plan(options: argparse.Namespace) -> int:
    import json

    from megasbp.experiment.plan import plan
    from megasbp.experiment.recipe import load_recipe
    from megasbp.report.plan_table import print_plan

    planned = plan(load_recipe(options.recipe, options.overrides))
    if options.json:
        print(json.dumps(planned, indent=2, sort_keys=True))
    else:
        print_plan(planned)
    return 0


def _counts(text: str) -> list[int]:
    """Whole numbers of at least 1, separated by commas."""
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a number below 1")
    return counts


def _dry_run(options: argparse.Namespace) -> int:
    import json

    from megasbp.experiment.dry_run import dry_run
    from megasbp.experiment.recipe import load_recipe
    from megasbp.report.dry_run_table import print_dry_run

    recipe = load_recipe(options.recipe, options.overrides)
    gpus, memory = options.gpus or [recipe.cluster.training.ranks], options.memory or _GPU_MEMORY
    report = dry_run(recipe, gpus, memory)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_dry_run(report)
    return 0


def _stage(options: argparse.Namespace) -> int:
    from megasbp.experiment.parts import REPORT, find_part
    from megasbp.experiment.recipe import load_recipe
    from megasbp.experiment.run import make_part, start_runtime

    recipe = load_recipe(options.recipe, options.overrides)
    part = find_part(recipe, options.stage)
    runtime = start_runtime(recipe, part)
    try:
        make_part(recipe, part, runtime, _announce if runtime.is_main else _ignore)
    except SystemExit:
        # Asked to stop, which all ranks agree on.
        runtime.close()
        raise
    # A rank that fails leaves without the others, for whom it would wait here while they wait for it: they,
    # and what it has to say, come to an end with its process.
    runtime.close()
    if part.name == REPORT:
        _draw(recipe.folder)
    return 0


def _train(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _dry_run(options)
    for name, given in (("--gpus", options.gpus), ("--memory", options.memory), ("--json", options.json)):
        if given:
            raise InputError(f"{name}: belongs to --dry-run; add that, or leave it out")
    if options.arm is None:
        raise InputError("--arm is missing; name one of the recipe's budget.arms, or add --dry-run")
    from megasbp.experiment.budget import trained_arms
    from megasbp.experiment.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    seed = recipe.seeds[0] if options.seed is None else options.seed
    if seed not in recipe.seeds:
        raise InputError(f"--seed {seed}: the recipe has seeds {list(recipe.seeds)}")
    arms = trained_arms(recipe)
    if options.arm not in arms:
        raise InputError(f"--arm {options.arm}: the recipe has arms {', '.join(arms)}")
    options.stage = f"seed-{seed}/train-{options.arm}"
    return _stage(options)


def _report(options: argparse.Namespace) -> int:
    if options.run.suffix != ".toml":
        if options.overrides:
            raise InputError(f"{options.overrides[0]}: settings go with a recipe, and {options.run} is a run")
        _draw(options.run)
        return 0
    from megasbp.experiment.partial import publish_partial_results
    from megasbp.experiment.recipe import load_recipe

    path, missing = publish_partial_results(load_recipe(options.run, options.overrides))
    _draw_results(path)
    print(f"missing: {', '.join(missing) or 'nothing'}")
    return 0


def _draw(run: Path) -> None:
    """Prints the table of a run's results and writes its page."""
    _draw_results(run / "report" / "results.json")


def _draw_results(path: Path) -> None:
    from megasbp.report.schema import read_results
    from megasbp.report.terminal import terminal_table
    from megasbp.report.write import write_report

    # First what needs no writing: the run may be somebody else's.
    print(terminal_table(read_results(path)))
    write_report(path)
    print(f"report: {path.parent / 'report.html'}")


def _clean(options: argparse.Namespace) -> int:
    from megasbp.experiment.clean import clean

    removed = clean(options.run, everything=options.all, dry_run=options.dry_run)
    for path, size in removed:
        print(f"{size / 1e6:10.1f} MB  {path}")
    word = "would be freed" if options.dry_run else "freed"
    print(f"{sum(size for _, size in removed) / 1e6:10.1f} MB  {word}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from megasbp.doctor import doctor

    return doctor()


def _announce(line: str) -> None:
    print(line, flush=True)


def _ignore(line: str) -> None:
    """Ranks other than the first stay silent."""
