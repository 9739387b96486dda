"""One task per shard, on this machine's processes or on a Ray cluster, each output published once."""
