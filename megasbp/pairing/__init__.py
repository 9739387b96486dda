"""Pairs of related documents: embedders, neighbour search, selection and the pair table."""
