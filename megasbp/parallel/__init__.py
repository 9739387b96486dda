"""Process groups, the device mesh and what is applied to a model to shard it."""
