"""Held-out perplexity and the quality of synthetic text."""
