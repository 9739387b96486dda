"""Downstream tasks: what a model answers, measured by lm-eval-harness on files of the user's."""
