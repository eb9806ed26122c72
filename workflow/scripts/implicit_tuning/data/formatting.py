"""Formatting: upstream rows of a data set become training conversations or evaluation items."""

import contextlib
import difflib
import importlib
import json
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal, TextIO, TypeVar

from tqdm import tqdm

from implicit_tuning.data import formatters
from implicit_tuning.data.derangement import other_places
from implicit_tuning.data.reading import read_rows
from implicit_tuning.data.rows import Item, Message, UnusableRow, WrongSchema

# Seconds before a progress bar appears (on a terminal only).
PROGRESS_DELAY = 2.0
# The function that makes a module of data/formatters a formatter of this kind of data set.
BUILDERS = {"training": "to_messages", "evaluation": "to_item"}
# Generator of the reference answers that come with a data set.
REFERENCE = "reference"
RANDOM_INSTRUCTIONS_SEED = 0

Record = TypeVar("Record")
Instructions = Literal["given", "blank", "random"]
# Messages by the number of the row that they come from.
Conversations = Mapping[int, list[Message]]
Rephrase = Callable[[Conversations], Conversations]


class FormattingError(ValueError):
    """A source from which the asked-for rows cannot be built."""


@dataclass
class FormatReport:
    """What became of the rows of a source.

    Attributes:
        read: rows looked at (of chess: games).
        unusable: numbers of the rows left out, by reason; the first row is 1.
        notes: counts of what is worth knowing, such as conversations of several turns and texts
            that occur before; texts are compared and measured (in characters) without outer white
            space and before instructions are blanked.
    """

    used: int = 0
    read: int = 0
    unusable: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


def format_training(
    source: Path,
    formatter: str,
    rows: int | None,
    instructions: Instructions,
    destination: Path,
    rephrase: Rephrase | None = None,
    exactly: bool = False,
) -> FormatReport:
    """Write rows.jsonl: {"messages": [...], "source_row": int} a line.

    Args:
        rows: usable rows to take, in upstream order; None takes all.
        instructions: what stands in the user turns, which all stay: the "given" text; nothing
            ("blank": response tuning; paper, section 4); or the text of another turn ("random").
        rephrase: takes the conversations, by the number of their row and with their given
            instructions, and returns them with other responses; None leaves all as they are.
        exactly: whether fewer usable rows than `rows` are an error; if not, they are noted.

    Raises:
        FormattingError: no such formatter for training, or no usable row, or too few.
        ValueError: "random", and the instructions are too much alike to change places.
        WrongSchema: the file is of another schema.
        UnreadableSource: the file cannot be read.
    """
    module = _load_formatter(formatter, "training")
    report = FormatReport()
    texts = _Texts()
    conversations: Mapping[int, list[Message]] = dict(
        _usable_rows(source, module, module.to_messages, rows, report)
    )
    for messages in conversations.values():
        texts.add(messages)
    report.notes = dict(texts.notes)
    if exactly and rows is not None and report.used < rows:
        raise FormattingError(
            f"{source}: {report.used} of its {report.read} rows are usable, but an adaptation asks "
            f"for rows {rows}: lower that"
        )
    if rephrase is not None:
        conversations = rephrase(conversations)
    written = _with_instructions(list(conversations.values()), instructions)
    with _new_file(destination / "rows.jsonl") as output:
        for number, messages in zip(conversations, written, strict=True):
            _write_line(output, {"messages": messages, "source_row": number})
    return _checked_report(report, source, rows)


def format_evaluation(
    source: Path,
    formatter: str,
    rows: int | None,
    destination: Path,
    max_characters: int | None = None,
) -> FormatReport:
    """Write instructions.jsonl: {"index", "instruction", "family", "truth"} a line.

    An instruction is taken exactly as it is written, since judging joins on it. Where the data set
    has reference answers, they stand in outputs.jsonl, in the layout of a run's answers. Longer
    instructions than `max_characters` are reported as unusable, for models whose context has no
    room for them. `rows` items are taken, in upstream order. None takes all.

    Raises:
        FormattingError: no such formatter for evaluation, no row, an incomplete row, or an
            instruction that occurs twice.
        WrongSchema: the file is of another schema.
        UnreadableSource: the file cannot be read.
    """
    module = _load_formatter(formatter, "evaluation")
    too_long = f"longer than {max_characters} characters"
    report = FormatReport()
    seen: dict[str, int] = {}
    references = []

    def build(row: Mapping) -> Item:
        item = module.to_item(row)
        if max_characters is not None and len(item["instruction"]) > max_characters:
            raise UnusableRow(too_long)
        return item

    with _new_file(destination / "instructions.jsonl") as output:
        for number, item in _usable_rows(source, module, build, rows, report):
            _refuse_repetition(item, number, seen, source)
            answer = item.pop("reference", None)
            if answer is not None:
                row = {"index": len(seen), "instruction": item["instruction"], "output": answer}
                references.append({**row, "generator": REFERENCE})
            _write_line(output, {"index": len(seen), **item})
            seen[item["instruction"]] = number
    _refuse_incomplete(report, source, allowed=too_long)
    report.notes["instruction_characters"] = sum(len(instruction.strip()) for instruction in seen)
    _write_references(references, len(seen), source, destination)
    return _checked_report(report, source, rows)


# --- rows ---------------------------------------------------------------------------------------


def _load_formatter(name: str, kind: str) -> ModuleType:
    known = sorted(module.name for module in pkgutil.iter_modules(formatters.__path__))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise FormattingError(
            f"formatter '{name}' does not exist; "
            f"{'did you mean' if close else 'known are'} {', '.join(close or known)}?"
        )
    module = importlib.import_module(f"{formatters.__name__}.{name}")
    if not hasattr(module, BUILDERS[kind]):
        raise FormattingError(
            f"formatter '{name}' has no {BUILDERS[kind]}, so it is not for {kind}: correct "
            "'formatter' or 'kind' of the entry in datasets"
        )
    return module


def _usable_rows(
    source: Path,
    formatter: ModuleType,
    build: Callable[..., Record],
    limit: int | None,
    report: FormatReport,
) -> Iterator[tuple[int, Record]]:
    """Number and content of each usable row, until there are `limit`; `report` counts along."""
    with contextlib.closing(read_rows(source)) as raw:
        bar = tqdm(raw, desc=source.name, unit=" rows", delay=PROGRESS_DELAY, disable=None)
        records = _numbered(bar, formatter.COLUMNS, source)
        if hasattr(formatter, "group"):
            records = formatter.group(records)
        for number, record in records:
            report.read += 1
            try:
                built = build(record)
                _refuse_broken_unicode(built)
            except UnusableRow as problem:
                report.unusable.setdefault(problem.reason, []).append(number)
                continue
            report.used += 1
            yield number, built
            if report.used == limit:
                return


def _numbered(
    rows: Iterator[dict], columns: Mapping[str, type], source: Path
) -> Iterator[tuple[int, dict]]:
    """Rows with their numbers from 1, each checked for the columns that the formatter reads."""
    for number, row in enumerate(rows, start=1):
        for column, kind in columns.items():
            if column not in row:
                raise WrongSchema(source, number, f"no column '{column}'", row)
            value = row[column]
            if value is not None and not isinstance(value, kind):
                problem = f"column '{column}' holds a {type(value).__name__}, not a {kind.__name__}"
                raise WrongSchema(source, number, problem, row)
        yield number, row


def _refuse_broken_unicode(content: object) -> None:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnusableRow("text with half of a surrogate pair") from None


def _refuse_repetition(item: Item, number: int, seen: Mapping[str, int], source: Path) -> None:
    instruction = item["instruction"]
    if instruction in seen:
        raise FormattingError(
            f"{source}, row {number}: the instruction {instruction[:80]!r} stands in row "
            f"{seen[instruction]} already; judging joins on it: remove one of the rows"
        )


def _refuse_incomplete(report: FormatReport, source: Path, allowed: str) -> None:
    for reason, numbers in report.unusable.items():
        if reason != allowed:
            raise FormattingError(
                f"{source}, row {numbers[0]}: {reason}; an evaluation set with incomplete rows "
                "would no longer be the one that others report on: correct or remove the row"
            )


def _with_instructions(
    conversations: list[list[Message]], instructions: Instructions
) -> list[list[Message]]:
    """The conversations with other texts in their user turns, see `format_training`."""
    if instructions == "given":
        return conversations
    given = [m["content"] for messages in conversations for m in messages if m["role"] == "user"]
    texts = iter([""] * len(given))
    if instructions == "random":
        texts = iter([given[place] for place in other_places(given, RANDOM_INSTRUCTIONS_SEED)])
    return [
        [{**m, "content": next(texts)} if m["role"] == "user" else m for m in messages]
        for messages in conversations
    ]


# --- counts -------------------------------------------------------------------------------------


@dataclass
class _Texts:
    """Counts over the texts of conversations."""

    notes: Counter = field(
        default_factory=lambda: Counter(
            multi_turn=0,
            duplicate_instructions=0,
            duplicate_responses=0,
            instruction_characters=0,
            response_characters=0,
        )
    )
    seen: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, messages: list[Message]) -> None:
        for role, name in (("user", "instruction"), ("assistant", "response")):
            texts = tuple(m["content"].strip() for m in messages if m["role"] == role)
            self.notes[f"{name}_characters"] += sum(map(len, texts))
            self.notes[f"duplicate_{name}s"] += (role, *texts) in self.seen
            self.seen.add((role, *texts))
        self.notes["multi_turn"] += len(texts) > 1


def _checked_report(report: FormatReport, source: Path, rows: int | None) -> FormatReport:
    if not report.used:
        reasons = "; ".join(
            f"{reason} ({len(numbers)} rows)" for reason, numbers in report.unusable.items()
        )
        raise FormattingError(
            f"{source}: none of its {report.read} rows is usable"
            f"{': ' + reasons if reasons else ''}; correct the file or 'formatter' of its entry"
        )
    if rows is not None and report.used < rows:
        report.notes["rows_missing"] = rows - report.used
    return report


def _write_references(
    references: list[dict], expected: int, source: Path, destination: Path
) -> None:
    if not references:
        return
    if len(references) < expected:
        raise FormattingError(
            f"{source}: {len(references)} of its {expected} instructions have a reference answer: "
            "give one to each, or to none"
        )
    with _new_file(destination / "outputs.jsonl") as output:
        for row in references:
            _write_line(output, row)


def _new_file(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", newline="\n")


def _write_line(output: TextIO, record: Mapping) -> None:
    output.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")
