"""Stored annotations: what other judges, or people, said of pairs of outputs.

The files are those that alpaca_eval releases: `results/<model>/<annotator>/annotations.json` (one
verdict a pair, 805 pairs a model)

    {"instruction": "...", "output_1": "...", "generator_1": "gpt4_1106_preview",
     "output_2": "...", "generator_2": "Qwen-14B-Chat", "preference": 1.0000556221,
     "annotator": "weighted_alpaca_eval_gpt4_turbo", "raw_completion": {...}, ...}

and the human cross-annotations (several people a pair, each with 1, 2 or a draw, no generators).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from implicit_tuning.data.reading import read_rows
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.remote.web import FetchFailed, fetch_url, file_name, is_address

TEXTS = ("instruction", "output_1", "output_2")
# What a file without generators calls its two sides.
SIDES = ("output_1", "output_2")
# alpaca_eval's draw before version 0.5, and its mark of a failed verdict.
OLD_DRAW, FAILED = 0.0, -1.0

# Instruction, both outputs, both generators.
PairTexts = tuple[str, str, str, str, str]


class UnusableAnnotations(ValueError):
    """Stored annotations that cannot be fetched or read; the message names file and fix."""


@dataclass(frozen=True)
class StoredPair:
    """A pair of outputs and the mean of its stored preferences (1: output_1 is better, 2: output_2).

    The sign of a mean of several people's votes is that of their majority.
    """

    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    preference: float


@dataclass(frozen=True)
class Yardstick:
    """Stored annotations as a judge is held against them.

    Attributes:
        name: the annotator, where the rows name one, else the files.
        sha256: of each file, by its folder and name.
        pairs: with different outputs and at least one verdict, in the order of the files.
        n_identical: pairs of equal outputs; nobody judges them.
    """

    name: str
    sha256: Mapping[str, str]
    pairs: list[StoredPair]
    n_unjudged: int
    n_identical: int


def read_yardstick(files: Sequence[Path]) -> Yardstick:
    """Reads stored annotations; equal pairs, as of several people, become one.

    Raises UnusableAnnotations for rows that are no annotations, and when no pair is left.
    """
    rows = [_checked(row, f"{f}, row {n}") for f in files for n, row in enumerate(read_rows(f))]
    votes: dict[PairTexts, list[float]] = {}
    for pair, preference, _ in rows:
        if preference is not None:
            votes.setdefault(pair, []).append(preference)
    pairs = [StoredPair(*pair, sum(found) / len(found)) for pair, found in votes.items()]
    different = [pair for pair in pairs if pair.output_1 != pair.output_2]
    if not different:
        raise UnusableAnnotations(f"{_names(files)}: there is no pair with a verdict in them")
    annotators = {annotator for _, _, annotator in rows}
    annotator = annotators.pop() if len(annotators) == 1 else None
    return Yardstick(
        name=_names(files) if annotator is None else annotator,
        sha256={f"{file.parent.name}/{file.name}": file_sha256(file) for file in files},
        pairs=different,
        n_unjudged=sum(preference is None for _, preference, _ in rows),
        n_identical=len(pairs) - len(different),
    )


def comparisons(pairs: Iterable[StoredPair]) -> list[list[StoredPair]]:
    """The pairs in groups of one couple of generators, each instruction once in a group."""
    groups: dict[tuple, list[StoredPair]] = {}
    met: dict[tuple, int] = {}
    for pair in pairs:
        sides = (pair.generator_1, pair.generator_2)
        place = met[*sides, pair.instruction] = met.get((*sides, pair.instruction), 0) + 1
        groups.setdefault((*sides, place), []).append(pair)
    return list(groups.values())


def local_file(source: str, folder: Path) -> Path:
    """Returns the path that `source` is, or a copy in `folder` of what lies at that URL.

    A copy that stands is not fetched again; size and progress are printed. Raises
    UnusableAnnotations when there is no such file, and when the download fails or is incomplete.
    """
    if not is_address(source):
        if not Path(source).is_file():
            raise UnusableAnnotations(f"{source}: no such file, and no http(s) address: correct it")
        return Path(source)
    place = hashlib.sha256(source.encode()).hexdigest()[:12]
    copy = folder / place / (file_name(source) or "annotations.json")
    if not copy.is_file():
        try:
            fetch_url(source, copy)
        except FetchFailed as error:
            raise UnusableAnnotations(str(error)) from None
    return copy


def _checked(row: Mapping, where: str) -> tuple[PairTexts, float | None, str | None]:
    """Returns texts and generators of a row, its preference (None if none), its annotator."""
    for key in TEXTS:
        if not isinstance(row.get(key), str):
            raise UnusableAnnotations(
                f"{where}: `{key}` is {row.get(key)!r}, not a text: give files in the layout of "
                "alpaca_eval's annotations.json"
            )
    instruction, output_1, output_2 = (row[key] for key in TEXTS)
    generator_1, generator_2 = (
        row.get(f"generator_{n}") or side for n, side in enumerate(SIDES, start=1)
    )
    pair = (instruction, output_1, output_2, generator_1, generator_2)
    return pair, _preference(row.get("preference"), where), row.get("annotator")


def _preference(value: Any, where: str) -> float | None:
    try:
        number = FAILED if value is None else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isnan(number) or number == FAILED:
        return None
    if number == OLD_DRAW:
        return 1.5
    if not 1 <= number <= 2:
        raise UnusableAnnotations(f"{where}: `preference` is {value!r}, not between 1 and 2")
    return number


def _names(files: Sequence[Path]) -> str:
    return ", ".join(dict.fromkeys(file.name for file in files))
