"""The transformer, its initial weights, its FLOP count and its exchange with Hugging Face."""
