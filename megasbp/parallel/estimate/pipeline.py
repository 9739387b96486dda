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
    """Passes through one stage whose activations a rank holds together, at most, in torch's schedules.

    Where gradients of weights are deferred, activations are held until these are computed.

    Args:
        place: of the rank in the pipeline.
    """
    ranks, behind = parallel.pipeline, parallel.pipeline - 1 - place
    if ranks == 1:
        return 1
    stages = parallel.stages // ranks
    round_ = micro_batches // max(1, micro_batches // ranks)
    most = {
        "gpipe": micro_batches,
        "1f1b": behind + 1,
        "interleaved_1f1b": (stages - 1) * round_ + 2 * behind + 1,
        "interleaved_zero_bubble": (stages - 1) * round_ + ranks,
        "zbv_zero_bubble": min(2 * ranks, micro_batches + 1 + place),
        "dualpipe_v": 2 * ranks + 1,
    }[parallel.schedule]
    return min(micro_batches * stages, most)
