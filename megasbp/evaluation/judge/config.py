"""The recipe's [quality.judge] section."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# How the judge is reached: it changes no answer.
_REACHING = {"url", "key_variable", "timeout", "attempts", "concurrent"}


class JudgeConfig(BaseModel):
    """A model that judges texts.

    Attributes:
        kind: "local" (a causal language model that transformers loads) or "endpoint" (a server that speaks
            OpenAI's chat completions, such as vLLM's or llama.cpp's).
        model: local: name on the Hugging Face hub or folder; endpoint: the name that the server knows.
        url: endpoint only: up to the version, e.g. "http://localhost:8000/v1".
        key_variable: endpoint only: the environment variable that holds its key; without, none is sent.
        documents: judged of each arm and of real text, drawn by the run's seed.
        maximum_characters: of each text that the judge is shown.
        maximum_tokens: of an answer.
        temperature: of the answers; 0 is greedy.
        timeout: endpoint only: seconds until an answer must be there.
        attempts: endpoint only: after so many failures of one prompt the stage ends; a new run goes on there.
        concurrent: endpoint only: prompts that are under way at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "endpoint"]
    model: str = Field(min_length=1)
    url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    key_variable: str | None = Field(None, min_length=1)
    documents: int = Field(200, ge=1)
    maximum_characters: int = Field(8000, ge=100)
    maximum_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0)
    timeout: float = Field(120, gt=0)
    attempts: int = Field(5, ge=1)
    concurrent: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> Self:
        if self.kind == "endpoint" and self.url is None:
            raise ValueError("kind 'endpoint' needs url, up to the version, e.g. 'http://localhost:8000/v1'")
        if self.kind == "local" and self.temperature:
            raise ValueError(f"temperature is {self.temperature}, but kind 'local' is greedy; set it to 0")
        fields = type(self).model_fields
        changed = [name for name in sorted(_REACHING) if getattr(self, name) != fields[name].default]
        if self.kind == "local" and changed:
            raise ValueError(f"{changed[0]} is for kind 'endpoint'; leave it out")
        return self

    def deciding(self) -> dict[str, Any]:
        """What the answers depend on, JSON-serialisable."""
        return self.model_dump(mode="json", exclude=_REACHING)
