"""Unique text of whole topics, instead of text drawn at random: documents there have more neighbours."""

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from megasbp.addressing import derive_key
from megasbp.corpus.splits import SPLITS, fitting_clusters, visiting_order
from megasbp.errors import InputError
from megasbp.pairing.tfidf_embedder import TfidfEmbedder


def topics_of(texts: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The k-means cluster of each text, over its TF-IDF vector in 256 dimensions.

    Args:
        texts: n of them, at least `count`.
        count: topics looked for; some may stay empty.
        seed: of the first centres.

    Returns:
        int64 [n] in 0..count - 1.

    Raises:
        InputError: there are fewer texts than topics.
    """
    if len(texts) < count:
        raise InputError(f"corpus.unique_topics is {count}, but there are {len(texts)} documents; lower it")
    vectors = TfidfEmbedder.fit(texts).embed(texts)
    state = derive_key(seed, "topics") % 2**32
    means = MiniBatchKMeans(count, random_state=state, batch_size=4096, n_init=3)
    return means.fit_predict(vectors).astype(np.int64)


def unique_by_topics(
    codes: np.ndarray, clusters: np.ndarray, topics: np.ndarray, seed: int
) -> tuple[np.ndarray, int]:
    """Chooses anew which of the oracle's documents are the unique ones: as many as before, in whole topics.

    Topics are visited in a keyed order, and within a topic near-duplicate clusters in theirs; a cluster has
    the topic of most of its documents. All topics but the last one are whole, unless a cluster is larger than
    the room left.

    Args:
        codes: int8 [n], indices into `SPLITS`, as `assign_splits` gives them.
        clusters: int64 [n], near-duplicate cluster of each document, in 0..n - 1.
        topics: int64 [m], of the m documents that are "unique" or "oracle" in `codes`, in their order.

    Returns:
        int8 [n], new codes, and how many topics the unique documents have.

    Raises:
        InputError: whole clusters do not add up to as many documents.
    """
    trained = np.isin(codes, [SPLITS.index("unique"), SPLITS.index("oracle")])
    wanted = int((codes == SPLITS.index("unique")).sum())
    labels, place, sizes = np.unique(clusters[trained], return_inverse=True, return_counts=True)
    votes = np.zeros((len(labels), int(topics.max()) + 1), np.int64)
    np.add.at(votes, (place, topics), 1)
    topic = votes.argmax(axis=1)
    keys = np.array([derive_key(seed, "topic", one) for one in range(votes.shape[1])], np.uint64)
    # Sorted by label, the visiting order gives each label's place in it.
    order = np.argsort(visiting_order(labels, seed), kind="stable")
    visited = np.lexsort((order, keys[topic]))
    taken, short = fitting_clusters(sizes, visited, wanted)
    if short:
        raise InputError(
            f"corpus.unique_topics: {short} of corpus.unique, {wanted}, find no cluster of near-duplicates "
            "that fits; change corpus.unique a little"
        )
    chosen = np.zeros(len(labels), bool)
    chosen[visited[taken]] = True
    result = codes.copy()
    result[trained] = np.where(chosen[place], SPLITS.index("unique"), SPLITS.index("oracle"))
    return result, len(np.unique(topic[chosen]))
