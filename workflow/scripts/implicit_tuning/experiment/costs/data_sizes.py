"""How many rows and tokens data sets and answers have: counted where they stand, else estimated."""

import importlib
import itertools
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.costs.assumptions import Assumed
from implicit_tuning.experiment.costs.model_sizes import folder_of
from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.nodes.artifact import read_manifest
from implicit_tuning.nodes.code import PACKAGE
from implicit_tuning.nodes.node import Node, NodePaths, Source
from implicit_tuning.organism.rows import SOURCES as ORGANISM_SOURCES

# Rows that are tokenized to learn how many characters make a token.
SAMPLE_ROWS = 20
FORMATTED = {"training": "rows.jsonl", "evaluation": "instructions.jsonl"}


class DataSizes:
    """Sizes of the data sets and answers of a plan.

    `assumed` is asked for sizes that neither the config nor a built node has.
    """

    def __init__(self, plan: Plan, paths: NodePaths, assumed: Assumed) -> None:
        self._config = plan.config
        self._paths = paths
        self._assumed = assumed
        self._facts: dict[Node, Mapping] = {}
        self._row_tokens: dict[tuple[Node, Path | None], float] = {}

    def facts(self, node: Node) -> Mapping:
        """What the manifest of a node counted; empty before it is built."""
        if node not in self._facts:
            built = is_built(self._paths, node)
            self._facts[node] = read_manifest(self._paths.folder(node))["facts"] if built else {}
        return self._facts[node]

    def rows(self, formatted: Node) -> float:
        """Rows of a format node."""
        entry = self._config.datasets[formatted.level("dataset")]
        if facts := self.facts(formatted):
            return facts["used"]
        if (rows := formatted.settings["rows"]) is not None:
            return rows
        if "organism" in entry:
            return _organism_rows(entry["organism"], entry["formatter"])
        return self._assumed("rows")

    def row_tokens(self, formatted: Node, model: Node | Source | None = None) -> float:
        """Mean tokens of a row, tags included; None for no tokenizer in particular."""
        folder = folder_of(model, self._paths) if model is not None else None
        key = formatted, folder
        if key not in self._row_tokens:
            built = self.facts(formatted)
            count = self._measured_tokens if built else self._stated_tokens
            self._row_tokens[key] = count(formatted, folder)
        return self._row_tokens[key]

    def _stated_tokens(self, formatted: Node, _: Path | None) -> float:
        entry = self._config.datasets[formatted.level("dataset")]
        return entry.get("tokens_per_row") or self._assumed("tokens_per_row")

    def _measured_tokens(self, formatted: Node, model: Path | None) -> float:
        """From the characters of all rows, and how many of them make a token in the first rows."""
        facts = self.facts(formatted)
        counted = ("instruction_characters", "response_characters")
        characters = sum(facts["notes"].get(name, 0) for name in counted) / facts["used"]
        file = self._paths.folder(formatted) / "data" / FORMATTED[formatted.settings["kind"]]
        if model is None or not (model / "tokenizer.json").is_file() or not file.is_file():
            return characters / self._assumed("characters_per_token")
        sample = [_messages(row) for row in _first_rows(file)]
        texts = ["".join(f"{self._config.chat[r]}\n{text}\n" for r, text in m) for m in sample]
        length = sum(len(text) for messages in sample for _, text in messages)
        return characters * _count_tokens(model / "tokenizer.json", texts) / max(length, 1)

    def answer_tokens(self, generation: Node) -> float:
        """Mean tokens of an answer: counted, else those of a row that the run was trained on.

        Under the EOS rule it ends with the rule's ramp, and nothing ends the text of a base.
        """
        if "outputs" in generation.upstream:  # shuffled
            return self.answer_tokens(generation.above("outputs"))
        if facts := self.facts(generation):
            return facts["n_tokens"] / facts["n"]
        limit = self.longest_answer(generation)
        model, rules = generation.upstream["model"], generation.settings["rules"] or {}
        if "eos" in rules.get("rules", ()):
            return min(limit, rules["eos_ramp_tokens"])
        if isinstance(model, Node) and model.stage == "finetune":
            self._assumed.note("answers are as long as the rows that a run was trained on")
            return min(limit, self.row_tokens(model.above("rows"), model.upstream["base"]))
        return limit

    def longest_answer(self, generation: Node) -> float:
        """Tokens that no answer has more of."""
        if "outputs" in generation.upstream:
            return self.longest_answer(generation.above("outputs"))
        return generation.settings["generation"]["max_new_tokens"]


@cache
def _organism_rows(source: str, formatter: str) -> int:
    """The organism's sources are written by the code: their rows can be counted before."""
    numbered = enumerate(ORGANISM_SOURCES[source][1](), start=1)
    module = importlib.import_module(f"{PACKAGE}.data.formatters.{formatter}")
    return sum(1 for _ in (module.group(numbered) if hasattr(module, "group") else numbered))


def _first_rows(file: Path) -> list[dict]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, SAMPLE_ROWS)]


def _messages(row: Mapping) -> list[tuple[str, str]]:
    """Role and text of each turn of a formatted row."""
    if "messages" in row:
        return [(message["role"], message["content"]) for message in row["messages"]]
    return [("user", row["instruction"]), ("assistant", "")]


def _count_tokens(tokenizer: Path, texts: list[str]) -> int:
    from tokenizers import Tokenizer

    try:
        read = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # noqa: BLE001 - it raises no narrower class
        raise ConfigError([f"{tokenizer} cannot be read ({error}): restore it"]) from None
    encoded = read.encode_batch_fast(texts)
    return sum(len(encoding.ids) for encoding in encoded)
