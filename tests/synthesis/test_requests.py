import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.synthesis.requests import build_prompt, locate_requests, shard_numbers

DOCUMENTS = 5000  # a Feistel network in the core; smaller ones are a table


class Marks:
    bos, eos, sep = 0, 1, 2


@pytest.mark.parametrize("documents", [1, 7, DOCUMENTS])
def test_each_round_uses_every_seed_document_once(documents):
    seed_documents, draws = locate_requests(np.arange(3 * documents), documents, seed=4)
    for draw in range(3):
        assert sorted(seed_documents[draws == draw].tolist()) == list(range(documents))


def test_rounds_and_seeds_have_orders_of_their_own():
    first, second = np.split(locate_requests(np.arange(2 * DOCUMENTS), DOCUMENTS, seed=4)[0], 2)
    other = locate_requests(np.arange(DOCUMENTS), DOCUMENTS, seed=5)[0]
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize("documents", [7, DOCUMENTS])
@pytest.mark.parametrize("together", [2, 5])
def test_draws_of_a_seed_that_come_together(documents, together):
    count = 2 * documents * together
    seed_documents, draws = locate_requests(np.arange(count), documents, 4, together)
    # Each visit of a seed takes its next draws, in order.
    visits = seed_documents.reshape(-1, together), draws.reshape(-1, together)
    assert all(len(set(visit)) == 1 for visit in visits[0].tolist())
    for round_, part in enumerate(np.split(np.column_stack([visits[0][:, 0], visits[1]]), 2)):
        assert sorted(part[:, 0].tolist()) == list(range(documents))
        assert (part[:, 1:] == np.arange(together) + round_ * together).all()
    # The same documents as one at a time, in another order.
    one = np.column_stack(locate_requests(np.arange(count), documents, 4))
    pairs = np.column_stack([seed_documents, draws])
    assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, one.tolist()))


@pytest.mark.parametrize(("documents", "used"), [(7, 3), (DOCUMENTS, 4999), (DOCUMENTS, 12)])
@pytest.mark.parametrize("together", [1, 2])
def test_of_some_seeds_each_is_drawn_from_equally_often(documents, used, together):
    seed_documents, draws = locate_requests(np.arange(3 * used * together), documents, 4, together, used)
    # The first ones that a run on all would ask.
    first = set(locate_requests(np.arange(used), documents, 4)[0].tolist())
    assert len(first) == used
    for draw in range(3 * together):
        assert sorted(seed_documents[draws == draw].tolist()) == sorted(first)


def test_fewer_seeds_are_among_more_and_their_rounds_have_orders_of_their_own():
    few, more = (set(locate_requests(np.arange(used), DOCUMENTS, 4, 1, used)[0].tolist()) for used in (9, 90))
    assert few < more
    first, second = np.split(locate_requests(np.arange(180), DOCUMENTS, 4, 1, 90)[0], 2)
    assert not np.array_equal(first, second)


def test_a_request_does_not_depend_on_those_asked_with_it():
    everything = locate_requests(np.arange(2 * DOCUMENTS), DOCUMENTS, seed=4)
    some = np.array([9999, 3, 5000])
    alone = locate_requests(some, DOCUMENTS, seed=4)
    assert all(np.array_equal(whole[some], part) for whole, part in zip(everything, alone, strict=True))


def test_shards_cover_the_requests_without_gap_or_overlap():
    assert np.concatenate([shard_numbers(shard, 4) for shard in range(3)]).tolist() == list(range(12))


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (6, 6), (7, 6)])
def test_the_seed_document_is_cut_to_half_the_context_less_two(length, kept):
    prompt = build_prompt(np.arange(10, 10 + length, dtype=np.uint16), Marks, context=16)
    assert prompt.dtype == np.int64
    assert prompt.tolist() == [0, *range(10, 10 + kept), 2]


def test_an_empty_seed_dataset_is_refused():
    with pytest.raises(InputError, match="0 documents"):
        locate_requests(np.arange(1), 0, seed=0)


def test_more_seeds_than_there_are_are_refused_with_the_mend():
    with pytest.raises(InputError, match="seed_documents is 1,001, and .* holds 1,000 documents; set it"):
        locate_requests(np.arange(1), 1000, seed=0, used=1001)
