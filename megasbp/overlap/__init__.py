"""How much text is shared: shingles, near-duplicate clusters, n-gram index."""
