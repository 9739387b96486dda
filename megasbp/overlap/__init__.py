"""How much texts share: shingles, near-duplicate clusters, an index of n-grams."""
