"""Embeddings of texts, for similarity (paper, section 5.2): unit vectors, their products cosines.

Two kinds. `tfidf` counts words, punctuation marks and line breaks: a baseline that needs no model.
`sentence_transformers` runs an embedding model from a local folder. (paper: nomic-embed-text-v1,
mean pooling)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Words, punctuation marks and line breaks: much of a style lies in the latter two.
TOKEN = r"\w+|[^\w\s]|\n"

SENTENCE_DEFAULTS = {"prefix": "", "batch_size": 64, "device": "cpu"}

# [texts, dimensions]; each row has length 1, or is zero where the text has nothing to embed.
Vectors: TypeAlias = np.ndarray | sparse.csr_matrix


class Embedder(Protocol):
    """Something that embeds texts.

    `description` says in a few words, for tables, what the vectors are.
    """

    description: str

    def embed(self, texts: Sequence[str]) -> Vectors: ...


def make_embedder(settings: Mapping, folder: Path | None, corpus: Sequence[str]) -> Embedder:
    """The embedder of an entry of `embeddings` in the config.

    Args:
        settings: the entry, with its `kind`; of sentence_transformers also what differs from
            `SENTENCE_DEFAULTS`.
        folder: folder of the model; tfidf has none.
        corpus: texts from which tfidf learns which tokens are rare.

    Raises:
        ValueError: there is no such kind, or what a kind needs is missing.
        ModuleNotFoundError: sentence-transformers is not installed.
    """
    match settings["kind"]:
        case "tfidf":
            return TfidfEmbedder(corpus)
        case "sentence_transformers":
            chosen = {**SENTENCE_DEFAULTS, **settings}
            return SentenceEmbedder(
                folder, chosen["prefix"], chosen["batch_size"], chosen["device"]
            )
        case kind:
            raise ValueError(f"embeddings know no kind {kind!r}: tfidf or sentence_transformers")


class TfidfEmbedder:
    """Weighs each token by how often the text has it and how few texts of a corpus do."""

    description = "TF-IDF of words, punctuation marks and line breaks, a baseline without a model"

    def __init__(self, corpus: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True).fit(corpus)

    def embed(self, texts: Sequence[str]) -> sparse.csr_matrix:
        return self._vectorizer.transform([text.strip() for text in texts])


class SentenceEmbedder:
    """A model of sentence-transformers in float32; how it pools, its folder says.

    Args:
        folder: as `SentenceTransformer.save_pretrained` writes it. Nothing is looked for elsewhere,
            and no code of the folder is run.
        prefix: put before each text, for models that were trained so.
    """

    def __init__(self, folder: Path | None, prefix: str, batch_size: int, device: str) -> None:
        self._model = _load(_checked(folder), device)
        self._prefix = prefix
        self._batch_size = batch_size
        self.description = (
            f"sentence-transformers, {self._model.get_embedding_dimension()} dimensions, "
            f"of each text the first {self._model.max_seq_length} tokens"
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self._model.encode(
            list(texts),
            prompt=self._prefix,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            show_progress_bar=True,
        )
        # A model has a vector even for no text at all, which would be close to something.
        vectors[[not text.strip() for text in texts]] = 0.0
        return vectors


def _checked(folder: Path | None) -> Path:
    if folder is None:
        raise ValueError(
            "embeddings of kind sentence_transformers need a 'path' to a local model folder"
        )
    # Its modules have folders of their own, the weights stand in any of them.
    for pattern in ("modules.json", "**/*.safetensors"):
        if not any(folder.glob(pattern)):
            raise ValueError(
                f"{folder} is no folder of sentence-transformers: it has no {pattern}. Point "
                "'path' of the embedding at what its save_pretrained wrote"
            )
    return folder


def _load(folder: Path, device: str) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "sentence-transformers is not installed, but the embedding is of that kind: run "
            "pip install -e '.[embeddings]', or take an embedding of kind tfidf"
        ) from None
    return SentenceTransformer(
        str(folder),
        device=device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": "float32", "use_safetensors": True},
    )
