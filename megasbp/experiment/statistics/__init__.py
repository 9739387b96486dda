"""How sure we are: intervals, tests and ratios of held-out losses, over seeds and documents."""
