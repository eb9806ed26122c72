"""What pins a source of the Hugging Face hub: a commit, and the bytes of each file."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PinnedFile:
    """The bytes that a file must have.

    Attributes:
        sha256: hexadecimal digest.
        size: in bytes.
        first_rows: None for the whole file. Else it is streamed and no further than so many rows,
            and the digest and size are those of these rows as JSON lines (see `sources`).
        records: how many usable records those rows were to give.
    """

    sha256: str
    size: int
    first_rows: int | None = None
    records: int | None = None


@dataclass(frozen=True)
class Pin:
    """What a revision of a repository was when it was looked up.

    Attributes:
        commit: 40 hexadecimal digits.
        files: by their path in the repository.
    """

    commit: str
    files: Mapping[str, PinnedFile]
