"""A part: stages that one start makes, on the same resources."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megasbp.experiment.divergence import DivergedStage
from megasbp.launch.config import Kind

if TYPE_CHECKING:
    from megasbp.experiment.method import Method, SeedStages


@dataclass(frozen=True)
class Part:
    """Stages that one start makes, on the same resources.

    Attributes:
        name: e.g. "corpus" or "seed-0/train-sbp".
        kind: what it runs on.
        needs: parts that must be finished before.
        stages: names of the stages that it makes.
        make: makes them.
        pieces: each makes some of these stages and needs none of the others, so they may be made side by
            side; `make` then finds them finished. Empty where there is nothing to take apart.
    """

    name: str
    kind: Kind
    needs: tuple[str, ...]
    stages: tuple[str, ...]
    make: "Callable[[Method], object]"
    pieces: "tuple[Callable[[Method], object], ...]" = ()


def below(seed: int, *names: str) -> tuple[str, ...]:
    """Names of parts or stages in a seed's folder."""
    return tuple(f"seed-{seed}/{name}" for name in names)


def seed_part(
    seed: int,
    name: str,
    kind: Kind,
    needs: tuple[str, ...],
    make: "Callable[[SeedStages], object]",
    *stages: str,
    pieces: "Sequence[Callable[[SeedStages], object]]" = (),
) -> Part:
    """A part of one seed.

    Args:
        name, stages: below the seed's folder; one stage of that name where none is given.
        needs: whole names.
        make, pieces: as of `Part`, from the seed's stages. What needs the weights of a training that diverged
            is left out, and the part is finished without it.
    """
    (own,) = below(seed, name)
    made = below(seed, *(stages or (name,)))

    def of_seed(make: "Callable[[SeedStages], object]") -> "Callable[[Method], object]":
        def make_or_leave_out(method: "Method") -> None:
            try:
                make(method.seed(seed))
            except DivergedStage as diverged:
                if any(method.workspace.may_make(stage) for stage in made):
                    method.workspace.announce(f"{own}: left out; {diverged}")

        return make_or_leave_out

    return Part(own, kind, needs, made, of_seed(make), tuple(of_seed(piece) for piece in pieces))
