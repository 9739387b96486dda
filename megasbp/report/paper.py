"""Rates that the paper publishes for its synthetic text, to stand beside our own.

Source: Yang, Zhang, Liu, Hashimoto, Candès, Wang, Pang, "Synthetic bootstrapped pretraining", arXiv
2509.15248.
"""

PAPER_SCALES = ("3B at 200B tokens", "3B at 1T tokens", "6B at 1T tokens", "Real text")

# Percent of documents, in the order of PAPER_SCALES; None where the rate has no meaning for real text.
PAPER_QUALITY: dict[str, tuple[float | None, ...]] = {
    "Repetition": (4.3, 3.9, 2.6, 1.8),
    "Duplicate among one million": (0.8, 0.8, 0.3, 0.7),
    "Not factual": (15.1, 8.7, 6.5, 1.8),
    "Irrelevant to its seed": (25.6, 7.8, 6.0, None),
    "Copy of its seed": (0.1, 0.9, 0.3, None),
}
