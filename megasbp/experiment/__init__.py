"""The experiment: recipe, stages, arms, budget and statistics."""
