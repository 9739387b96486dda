"""How many partitions a row is stored in and a query asks: chosen on a sample, before the search.

Whether a neighbour will be found is known beforehand for queries whose neighbours are known: it is when a
partition that the query asks is one that the neighbour is stored in (or the other way round, where the corpus
is its own set of queries). So recall and cost of every setting are read off the ranks of a few thousand rows.
"""

from dataclasses import dataclass

import numpy as np

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.join import best_among
from megasbp.pairing.partitions import fit_centroids
from megasbp.pairing.recall import Truth
from megasbp.pairing.vectors import Vectors

# A vector that is read, converted and copied costs about as much as this many scored pairs.
_PAIRS_PER_MOVED_VECTOR = 1000
_MOST_PROBES = 32
_MOST_STORED = 3
_SIZE_SAMPLE = 1 << 13
# A smaller number of partitions is first judged by centroids that are fitted in a tenth of the time. Settings
# with them cost 1.3 to 1.6 times as much (LSA vectors): where they cost more still, good ones will not pay.
_ROUGH_ROWS = 16
_ROUGH_ITERATIONS = 2
_ROUGH_EXCESS = 1.6


@dataclass(frozen=True)
class Setting:
    """One way to divide the search.

    Attributes:
        partitions, store, probe: see `Plan`.
        expected_recall, error: mean over the sample's queries, and its standard error.
        pairs: pairs scored per query.
        moved: vectors written and read per row.
        cost: pairs, assignment to partitions and moved vectors, in scored pairs per query.
    """

    partitions: int
    store: int
    probe: int
    expected_recall: float
    error: float
    pairs: float
    moved: float
    cost: float


def default_partitions(rows: int) -> int:
    """The power of two nearest to sqrt(rows), but about 32 rows in a partition on average at least."""
    return 2 ** round(np.log2(max(min(np.sqrt(rows), rows / 32), 1)))


def check_partitions(config: SearchConfig, rows: int) -> int:
    """The number of partitions that is named, or the default.

    Raises:
        InputError: more partitions than rows, or more stored or asked than partitions.
    """
    partitions = config.partitions or default_partitions(rows)
    if partitions > rows:
        raise InputError(f"pairing.search.partitions = {partitions} is more than the {rows} rows; lower it")
    for name, value in (("store", config.store), ("probe", config.probe)):
        if value is not None and value > partitions:
            raise InputError(
                f"pairing.search.{name} = {value} is more than the {partitions} partitions; lower it"
            )
    return partitions


def choose_setting(
    queries: np.ndarray | Vectors,
    corpus: np.ndarray | Vectors,
    truth: Truth,
    config: SearchConfig,
    *,
    same: bool,
) -> tuple[Setting, np.ndarray]:
    """The cheapest setting that is expected to reach the recall, and its centroids float32 [partitions, d].

    Args:
        queries, corpus: float32 [n, d] and [m, d], unit rows.
        truth: exact neighbours of a sample of the queries.
        config: the recall wanted, which the expected one exceeds by its standard error; whatever of
            partitions, store and probe it names is not chosen. Partitions are halved from the default on
            while that lowers the cost, or until the recall is reached.
        same: queries and corpus are the same rows.

    Raises:
        InputError: more partitions than rows, or more stored or asked than partitions, or the number of
            partitions that is given cannot reach the recall.
    """

    def cheapest(centroids: np.ndarray) -> Setting | None:
        settings = weigh_settings(queries, corpus, truth, centroids, config, same=same)
        enough = (setting for setting in settings if _is_enough(setting, config))
        return min(enough, key=lambda setting: setting.cost, default=None)

    partitions = check_partitions(config, len(corpus))
    best: tuple[Setting, np.ndarray] | None = None
    while True:
        if best is not None:
            rough = cheapest(
                fit_centroids(corpus, partitions, rows_each=_ROUGH_ROWS, iterations=_ROUGH_ITERATIONS)
            )
            if rough is None or rough.cost > _ROUGH_EXCESS * best[0].cost:
                return best
        centroids = fit_centroids(corpus, partitions)
        setting = cheapest(centroids)
        if setting is not None:
            if best is not None and best[0].cost <= setting.cost:
                return best
            best = setting, centroids
        if config.partitions is not None or partitions // 2 < max(config.probe or 1, config.store or 1):
            break
        partitions //= 2
    if best is None:
        most = weigh_settings(queries, corpus, truth, centroids, config, same=same)[-1]
        raise InputError(
            f"pairing.search.recall = {config.recall} is not reached by {len(centroids)} partitions with "
            f"{most.probe} probes ({most.expected_recall:.4f}); lower one of the two"
        )
    return best


def _is_enough(setting: Setting, config: SearchConfig) -> bool:
    if config.probe is not None:
        return config.probe == setting.probe
    return setting.expected_recall - setting.error >= config.recall


def weigh_settings(
    queries: np.ndarray | Vectors,
    corpus: np.ndarray | Vectors,
    truth: Truth,
    centroids: np.ndarray,
    config: SearchConfig,
    *,
    same: bool,
) -> list[Setting]:
    """Expected recall and cost of every (store, probe) with these centroids."""
    partitions = len(centroids)
    ranks = min(max(_MOST_PROBES, config.probe or 1, config.store or 1), partitions)
    stores = [config.store] if config.store else list(range(1, min(_MOST_STORED, partitions) + 1))

    def nearest(vectors: np.ndarray, count: int) -> np.ndarray:
        return best_among(vectors, centroids, count)[1]

    real = truth.row >= 0
    query = nearest(queries[truth.query], ranks)
    asker = query[np.nonzero(real)[0]]
    unique, place = np.unique(truth.row[real], return_inverse=True)
    found = nearest(corpus[unique], ranks)[place]
    generator = np.random.Generator(np.random.Philox(key=derive_key(0, "partition sizes")))
    sample = np.sort(
        generator.choice(len(corpus), min(len(corpus), _SIZE_SAMPLE), replace=False, shuffle=False)
    )
    sizes = nearest(corpus[sample], max(stores))
    counts = np.maximum(real.sum(axis=1), 1)
    settings = []
    for store in stores:
        # Smallest number of probes that finds each neighbour.
        needed = _first_meeting(asker, found[:, :store])
        if same:
            needed = np.minimum(needed, _first_meeting(found, asker[:, :store]))
        share = np.bincount(sizes[:, :store].ravel(), minlength=partitions) / len(sample)
        pairs = np.cumsum(share[query], axis=1).mean(axis=0) * len(corpus)
        for probe in range(1, ranks + 1):
            moved = store + probe
            hits = np.bincount(np.nonzero(real)[0], weights=needed < probe, minlength=len(real))
            recall = hits[real.any(axis=1)] / counts[real.any(axis=1)]
            settings.append(
                Setting(
                    partitions,
                    store,
                    probe,
                    float(recall.mean()) if len(recall) else 1.0,
                    float(recall.std() / np.sqrt(len(recall))) if len(recall) else 0.0,
                    float(pairs[probe - 1]),
                    moved,
                    float(pairs[probe - 1]) + partitions + _PAIRS_PER_MOVED_VECTOR * moved,
                )
            )
    return settings


def _first_meeting(asked: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """int64 [c]: the first rank of asked [c, r] that is among stored [c, a]; r where none is."""
    meets = (asked[:, :, None] == stored[:, None, :]).any(axis=2)
    return np.where(meets.any(axis=1), meets.argmax(axis=1), asked.shape[1])
