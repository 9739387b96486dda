"""What a judge is asked: our prompts, and how an answer is read."""

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from megasbp.storage import hash_object

_PROMPTS = resources.files("megasbp.evaluation.judge").joinpath("prompts")
# The last line, with whatever a model sets around its word: "**Yes.**", "Answer: no".
_ANSWER = re.compile(r"\W*(?:(?:final )?answer\W+)?(yes|no)\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A question that is answered by yes or no; the rate that is reported is that of yes.

    Attributes:
        name: of its prompt's file.
        reads_seed: whether the seed document is shown.
    """

    name: str
    reads_seed: bool

    @cached_property
    def template(self) -> str:
        """The prompt, with {document} and, if it is shown, {seed}."""
        return _PROMPTS.joinpath(f"{self.name}.txt").read_text(encoding="utf-8")

    @property
    def prompt_hash(self) -> str:
        """Names the prompt: another wording is another measure."""
        return hash_object(self.template)

    def prompt(self, document: str, seed: str | None = None) -> str:
        """The prompt for a text.

        Args:
            seed: the text of its seed, exactly where the question reads it.
        """
        assert (seed is not None) == self.reads_seed
        # In one pass: a text may hold braces.
        texts = {"{document}": document, "{seed}": seed or ""}
        return re.sub(r"\{(?:document|seed)\}", lambda found: texts[found[0]], self.template)


NOT_FACTUAL = Question("not_factual", reads_seed=False)
IRRELEVANT = Question("irrelevant", reads_seed=True)
QUESTIONS = (NOT_FACTUAL, IRRELEVANT)


def read_answer(text: str) -> bool | None:
    """Whether an answer's last line says yes; None where it says neither yes nor no, or both."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = _ANSWER.fullmatch(lines[-1].strip()) if lines else None
    return None if found is None else found[1].lower() == "yes"
