"""How long the ranks of a pipeline wait, and for how many micro-batches they hold activations."""

from megasbp.parallel.config import ParallelConfig


def bubble_share(parallel: ParallelConfig, micro_batches: int) -> float:
    """The share of a step in which a rank waits for others, passes of all stages being of one length.

    (p - 1) / (v m + p - 1) with p ranks, v stages on each and m micro-batches (Narayanan et al.,
    arXiv 2104.04473, section 2.2). For the schedules that defer the gradients of weights, which fill some of
    the waits with them, a bound.
    """
    waits = parallel.pipeline - 1
    stages = parallel.stages // parallel.pipeline
    return waits / (stages * micro_batches + waits)


def most_in_flight(parallel: ParallelConfig, place: int, micro_batches: int) -> int:
    """Passes through one stage whose activations a rank holds together, at most.

    Exact for "gpipe" and "1f1b". The others begin with as many forward passes as torch's schedules do; those
    that defer gradients are taken to hold twice the ranks, or that beginning, whichever is more.

    Args:
        place: of the rank in the pipeline.
    """
    ranks, behind = parallel.pipeline, parallel.pipeline - 1 - place
    if ranks == 1:
        return 1
    if parallel.schedule == "gpipe":
        return micro_batches
    if parallel.schedule == "1f1b":
        return min(micro_batches, behind + 1)
    stages = parallel.stages // ranks
    round_ = micro_batches // max(1, micro_batches // ranks)
    beginning = (stages - 1) * round_ + 2 * behind + 1
    most = max(beginning, 2 * ranks) if parallel.defers_gradients else beginning
    return min(micro_batches * stages, most)
