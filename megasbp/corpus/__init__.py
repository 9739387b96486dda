"""Reads text, sets bad documents aside, splits by cluster and tokenises."""
