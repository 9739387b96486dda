"""Samples documents from the synthesizer, filters them and records where each came from."""
