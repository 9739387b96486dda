"""The recipe's [corpus] section."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from megasbp.corpus.files import corpus_files
from megasbp.corpus.tokenizer import SMALLEST_VOCABULARY

# Settings that need text: they are of no use where it has become tokens already.
_OF_TEXT = (
    "text_field",
    "id_field",
    "title_field",
    "metadata_fields",
    "domain_field",
    "maximum_characters",
    "maximum_bad_share",
    "vocabulary_size",
    "tokenizer",
    "bos_token",
    "eos_token",
    "sep_token",
    "unique_topics",
)


class SourceConfig(BaseModel):
    """Where the text comes from; carried into every dataset made of it.

    Attributes:
        name: of the corpus.
        licence: of its text, e.g. "CC BY-SA 4.0".
        url: where it can be found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    licence: str
    url: str


class CorpusConfig(BaseModel):
    """What is read, how it is tokenised and how it is split.

    Attributes:
        paths: files and folders, read in this order; suffixes: see `megasbp.corpus.files`. Exactly one of
            this and `shards`.
        shards: output of tools/preprocess_corpus.py, which has read and tokenised the text already: nothing
            that says how goes beside it.
        text_field, id_field: names of the fields (JSON lines) or columns (Parquet). A document without an id
            is named by its file and line.
        title_field: if set, a document's title becomes the first line of its text.
        metadata_fields: kept beside the text, as strings.
        domain_field: if set, a field that names each document's domain, such as where it comes from; the
            held-out loss is then given by domain too. It changes no text and no split.
        source: name, licence and address of the text.
        maximum_characters: longer documents are set aside.
        maximum_bad_share: more bad documents than this share stop the run.
        vocabulary_size: of the byte-level BPE to be trained; of text, exactly one of this and `tokenizer`.
        tokenizer: a tokenizer.json to be used as it is.
        bos_token, eos_token, sep_token: names of its special tokens, where they cannot be found by
            themselves.
        seed: of the split and of the search for duplicates.
        unique: documents of the corpus that all arms share.
        oracle: documents of the oracle's corpus, which holds `unique`.
        unique_topics: if set, the unique documents are not drawn at random from the oracle's but are whole
            topics: of so many k-means clusters, in a keyed order, as many as give `unique` documents. They
            have more neighbours, as those of a larger corpus do. Held-out documents stay of all topics.
        validation, test: held-out documents.
        duplicate_threshold: Jaccard similarity of shingles from which documents count as near-duplicates and
            never go to different splits.
        duplicate_shingle_width: words of a shingle, or tokens where `shards` are read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[Path, ...] = ()
    shards: Path | None = None
    text_field: str = "text"
    id_field: str = "id"
    title_field: str | None = None
    metadata_fields: tuple[str, ...] = ()
    domain_field: str | None = None
    source: SourceConfig
    maximum_characters: int = Field(1_000_000, ge=1)
    maximum_bad_share: float = Field(0.01, ge=0, le=1)
    vocabulary_size: int | None = Field(None, ge=SMALLEST_VOCABULARY)
    tokenizer: Path | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    sep_token: str | None = None
    seed: int = 0
    unique: int = Field(ge=1)
    oracle: int = Field(ge=1)
    unique_topics: int | None = Field(None, ge=2)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    duplicate_threshold: float = Field(0.5, ge=0.05, le=1)
    duplicate_shingle_width: int = Field(5, ge=1)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if bool(self.paths) == (self.shards is not None):
            raise ValueError(
                f"corpus.paths is {[str(path) for path in self.paths]} and corpus.shards is {self.shards}; "
                "set exactly one of them"
            )
        if self.shards is None:
            self._check_tokenizer()
        else:
            self._refuse_reading_settings()
        if self.oracle < self.unique:
            raise ValueError(
                f"corpus.oracle is {self.oracle}, below corpus.unique, {self.unique}, which is part of it; "
                f"set it to at least {self.unique}"
            )
        return self

    def _check_tokenizer(self) -> None:
        if (self.vocabulary_size is None) == (self.tokenizer is None):
            raise ValueError(
                f"corpus.vocabulary_size is {self.vocabulary_size} and corpus.tokenizer is {self.tokenizer}; "
                "set exactly one of them"
            )
        names = [self.bos_token, self.eos_token, self.sep_token]
        if self.tokenizer is None and any(names):
            raise ValueError(
                "corpus.bos_token, eos_token and sep_token go with corpus.tokenizer; leave them out"
            )

    def _refuse_reading_settings(self) -> None:
        for name in _OF_TEXT:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"corpus.{name} needs text; corpus.shards, {self.shards}, holds tokens: leave it out"
                )

    def content(self) -> dict[str, Any]:
        """The section as JSON-serialisable values; without these settings as before there were any."""
        unset = {name for name in ("domain_field", "unique_topics") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=unset)

    def exists(self) -> bool:
        """Whether the text, or the finished shards, are there to be read."""
        places = self.paths if self.shards is None else (self.shards / "corpus.json",)
        return all(place.exists() for place in places)

    def files(self) -> list[Path]:
        """The corpus's files in reading order.

        Raises:
            InputError: a path is missing, holds nothing readable, or is named twice.
        """
        return corpus_files(self.paths)
