"""A recipe's parts: the stages that one start makes, what they need first, and what they run on."""

from collections.abc import Sequence

from megasbp.errors import InputError
from megasbp.experiment.clean import record_used
from megasbp.experiment.method import Method
from megasbp.experiment.part import Part
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.results import publish_results
from megasbp.experiment.seed_parts import SeedParts

REPORT = "report"


def parts(recipe: Recipe) -> list[Part]:
    """All parts of a recipe, each after those that it needs; the last one is the report."""
    multiples = (f"unique-x{multiple}" for multiple in recipe.budget.multiples)
    domains = ("domains",) if recipe.corpus.domain_field else ()
    corpus = ("split", "tokenizer", "datasets", "units", *multiples, *domains)
    listed = [Part("corpus", "data", (), corpus, lambda method: (method.corpus, method.domains))]
    if "continuation" in recipe.budget.arms:
        name = "units-continuation"
        listed.append(Part(name, "data", ("corpus",), (name,), lambda method: method.continuation_corpus))
    for seed in recipe.seeds:
        listed += SeedParts(recipe, seed).listed()
    needs = tuple(part.name for part in listed)
    return [*listed, Part(REPORT, "data", needs, (), _publish)]


def find_part(recipe: Recipe, name: str) -> Part:
    """The part that makes a stage; "corpus", "seed-N/losses" and others make several.

    Args:
        name: of the part or the stage, with or without its folder; without it the first seed's is meant.

    Raises:
        InputError: there is none; the message lists them.
    """
    listed = parts(recipe)
    for part in listed:
        names = (part.name, *part.stages)
        if name in {*names, *(full.rpartition("/")[2] for full in names)}:
            return part
    known = ", ".join(part.name for part in listed)
    raise InputError(f"{name}: no such stage; this recipe's are {known}")


def parts_until(recipe: Recipe, stages: Sequence[str] | None) -> list[Part]:
    """The parts that make these stages, and those that they need; all of them for None.

    Raises:
        InputError: as of `find_part`.
    """
    listed = parts(recipe)
    if stages is None:
        return listed
    wanted = {find_part(recipe, stage).name for stage in stages}
    # A part stands after those that it needs.
    for part in reversed(listed):
        if part.name in wanted:
            wanted.update(part.needs)
    return [part for part in listed if part.name in wanted]


def _publish(method: Method) -> None:
    """Writes the run's results, and notes which stage folders they came from."""
    root = method.recipe.folder
    publish_results(method.recipe, method.results(), method.left_out, method.variant or root / "report")
    record_used(root, method.workspace.used, method.variant or root)
