"""One trainer for every arm: loop, optimiser, schedule, checkpoint and metrics."""
