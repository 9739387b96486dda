"""Indexed dataset, sample order, mixtures, packing plans and the loader."""
