"""Starts the stages of a run on a cluster: by torchrun's agents, one a host, or as jobs of Slurm."""
