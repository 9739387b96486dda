"""Draws the results: terminal table, curves and one self-contained HTML page. Computes nothing."""
