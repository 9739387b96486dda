"""From files of text to documents and tokens: readers, quarantine, tokenizer, splits."""
