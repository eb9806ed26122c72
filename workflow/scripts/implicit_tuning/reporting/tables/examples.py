"""The answers of all adaptations to a handful of instructions, which a rule chooses."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import pandas as pd

from implicit_tuning.data.reading import read_rows
from implicit_tuning.reporting.tables.layout import Table, counted

COUNT = 8
# Characters of an answer in the Markdown; the .csv has all of it.
SHOWN = 400
TABLE_COLUMNS = [
    "base",
    "index",
    "family",
    "instruction",
    "adaptation",
    "seed",
    "output",
    "finish",
    "n_tokens",
    "verdict",
    "against",
]
NO_SEED = "none"

Answers = Mapping[int, Mapping]


def build(inputs: Mapping[str, Path], label: str, adaptations: Sequence[str]) -> Table:
    """Answers to COUNT instructions, with the verdict against the reference run.

    The instructions are sorted by the sha256 of their text, and one of each family is taken in
    turn (where the set has families): nobody chose them. The runs are those of the first seed.
    `inputs` are data folders of answers ("generate/...") and comparisons ("judge/...") by the names
    of their nodes, and the formatted "instructions".

    Raises:
        ValueError: an adaptation that `adaptations` does not name, or answers without a comparison.
    """
    instructions = list(read_rows(inputs["instructions"] / "instructions.jsonl"))
    chosen = choose_instructions(instructions)
    runs = _first_seed([name for name in inputs if name.startswith("generate/")], adaptations)
    rows = [
        _row(run, instruction, outputs, verdicts)
        for run in runs
        for outputs, verdicts in [_read_run(run, inputs)]
        for instruction in chosen
    ]
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    places = {row["index"]: place for place, row in enumerate(chosen)}
    bases = list(dict.fromkeys(frame["base"]))
    # Stable, so that adaptations stay in their order below each instruction.
    frame = frame.sort_values(
        ["base", "index"],
        key=lambda column: column.map(bases.index if column.name == "base" else places.get),
        kind="stable",
        ignore_index=True,
    )
    return Table(frame, _caption(label, frame), markdown=_markdown(frame))


def choose_instructions(instructions: Sequence[Mapping], count: int = COUNT) -> list[Mapping]:
    """Returns `count` instructions: one of each family in turn, each family by sha256 of its texts.

    Families come in the order in which their first instruction does; a set without families is one.
    """
    families: dict[str | None, list[Mapping]] = {}
    for row in sorted(
        instructions, key=lambda row: hashlib.sha256(row["instruction"].encode()).hexdigest()
    ):
        families.setdefault(row.get("family"), []).append(row)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [row for row in turns if row is not None][:count]


def _first_seed(names: Sequence[str], adaptations: Sequence[str]) -> list[tuple[str, ...]]:
    """Base, adaptation, seed and evaluation of the first seed's runs, in the order of rows."""
    runs = [tuple(name.split("/")[1:]) for name in names]
    unknown = sorted({run[1] for run in runs} - set(adaptations))
    if unknown:
        raise ValueError(f"answers of {unknown}, which the list of adaptations lacks")
    seeds = [int(run[2]) for run in runs if run[2] != NO_SEED]
    first = {NO_SEED, *([str(min(seeds))] if seeds else [])}
    bases = list(dict.fromkeys(run[0] for run in runs))
    return sorted(
        (run for run in runs if run[2] in first),
        key=lambda run: (bases.index(run[0]), adaptations.index(run[1])),
    )


def _read_run(run: tuple[str, ...], inputs: Mapping[str, Path]) -> tuple[Answers, Answers]:
    """Answers and verdicts of a run by the index of their instruction."""
    name = "/".join(run)
    judged = sorted(other for other in inputs if other.startswith(f"judge/{name}/"))
    if not judged:
        raise ValueError(f"generate/{name} has no comparison among the inputs of the table")
    outputs = read_rows(inputs[f"generate/{name}"] / "outputs.jsonl")
    verdicts = read_rows(inputs[judged[0]] / "annotations.jsonl")
    return {row["index"]: row for row in outputs}, {row["index"]: row for row in verdicts}


def _row(
    run: tuple[str, ...], instruction: Mapping, outputs: Answers, verdicts: Answers
) -> dict[str, object]:
    base, adaptation, seed, _ = run
    output, verdict = outputs[instruction["index"]], verdicts[instruction["index"]]
    return {
        "base": base,
        "index": instruction["index"],
        "family": instruction.get("family"),
        "instruction": instruction["instruction"],
        "adaptation": adaptation,
        "seed": seed,
        "output": output["output"],
        "finish": output["finish"],
        "n_tokens": output["n_tokens"],
        "verdict": _verdict(verdict),
        "against": verdict["generator_1"],
    }


def _verdict(row: Mapping) -> str:
    if row["generator_1"] == row["generator_2"]:
        return "reference"
    if row["preference"] is None:
        return "not judged"
    return "tie" if row["preference"] == 1.5 else "win" if row["preference"] > 1.5 else "loss"


def _caption(label: str, frame: pd.DataFrame) -> str:
    return (
        f"**{label or 'Examples'}.** Answers of all adaptations to "
        f"{counted(frame['index'].nunique(), 'instruction')} of the evaluation set, chosen by rule: "
        "sorted by the sha256 of the text, one of each family in turn. Runs of the first seed; win, tie or loss is the judge's verdict "
        "against the reference run's answer."
    )


def _markdown(frame: pd.DataFrame) -> str:
    parts = [f"Answers are cut to {SHOWN} characters here; the .csv has all of them."]
    for base, of_base in frame.groupby("base", sort=False):
        parts.append(f"## {base}")
        for instruction, answers in of_base.groupby("instruction", sort=False):
            parts += ["### Instruction", _fenced(instruction)]
            for row in answers.to_dict(orient="records"):
                ended = f"{row['n_tokens']} tokens, {row['finish']}"
                parts += [f"**{row['adaptation']}** ({row['verdict']}; {ended})"]
                text = row["output"]
                parts += [_fenced(text if len(text) <= SHOWN else f"{text[:SHOWN]} […]")]
    return "\n\n".join(parts)


def _fenced(text: str) -> str:
    """The text as a block of code, so that nothing in it is read as Markdown."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
