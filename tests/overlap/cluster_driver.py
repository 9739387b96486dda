"""Clusters in a process of its own: `cluster_driver.py ENGINE PARTS FOLDER DATASET...`."""

import sys
from pathlib import Path

from megasbp.overlap import corpus_clusters
from megasbp.shards.config import ShardsConfig

engine, parts, folder, *datasets = sys.argv[1:]
corpus_clusters.parts_for = lambda documents, memory: int(parts)
corpus_clusters.cluster_corpus(
    [Path(dataset) for dataset in datasets],
    Path(folder),
    width=5,
    threshold=0.7,
    seed=1,
    shards=ShardsConfig(engine=engine, workers=2),
)
