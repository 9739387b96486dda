"""The terms that the page uses, each in a line or two."""

GLOSSARY = {
    "SBP": (
        "Synthetic bootstrapped pretraining: a model learns from related documents of its own corpus how one "
        "leads to the other, writes new documents that way, and a fresh model trains on old and new text."
    ),
    "Nats per byte": (
        "Loss of the model on held-out text: its surprise in natural-logarithm units, divided by the bytes "
        "of the text. Lower is better; it does not depend on the tokenizer."
    ),
    "Baseline": "The same model and budget on the unique text alone, repeated as often as the budget needs.",
    "Self samples": (
        "The control of SBP whose text the baseline wrote by itself, without seed documents. What SBP gains "
        "over it comes from pairs, and not from a model learning from its own text."
    ),
    "Random pairs": (
        "The control of SBP: its synthesizer was tuned on unrelated pairs. What SBP gains over it comes from "
        "the relation between documents."
    ),
    "Oracle": "The same model and budget with more unique text instead of repetition.",
    "Seed document, target": (
        "A pair (d1, d2): the synthesizer reads the seed d1 and learns to write the target d2."
    ),
    "Seed of a run": "The number that fixes all chance in a run. Each one reruns the whole pipeline.",
    "Epochs": "How often a text is seen in training.",
    "Matched tokens": "Input tokens of the final model, the same for every arm.",
    "Interval": (
        "Range of values compatible with the data. With several seeds it covers the seeds and the choice of "
        "test documents, with one seed only the latter: conditional on this run."
    ),
    "Cluster": "Near-duplicate documents taken as one, in splitting the corpus and in every interval.",
    "p, corrected p": (
        "Chance of a difference at least this large if there were none. SBP over the baseline is the one "
        "primary hypothesis; the p of the secondary ones is corrected for their number by Holm's method."
    ),
    "Share of the oracle's gain": (
        "SBP's gain divided by the oracle's. It has no bounded interval (Fieller's set is unbounded) when "
        "the oracle's own gain is not significant."
    ),
    "Data-efficiency multiplier": (
        "How many times the unique text a baseline of the same budget needs to reach SBP's loss. It is read "
        "off baselines on more text, and never beyond the most that was measured."
    ),
    "Gate": (
        "A condition asked before the arms with synthetic text are trained: that a pair is worth something, "
        "that the synthetic text is new, that repeating real text no longer helps the baseline."
    ),
}
