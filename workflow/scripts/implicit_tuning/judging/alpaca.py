"""The one door to alpaca-eval: one model's outputs against a reference's, under one of our judges.

`alpaca_eval.evaluate` does the pairing, the seeded switching of positions, the ties of identical
outputs and the win rate; the verdicts come from a `Judge` of ours. AlpacaEval's preference runs
from 1 to 2: 1 means that `output_1`, the reference, is better, 2 that `output_2`, the model under
test, is, and 1.5 is a draw; the win rate in percent is 100 * (mean preference - 1).

In place of the texts AlpacaEval gets *handles*, one for each text of each instruction, and the
prompt it renders is the two handles in the order it chose. Texts so never pass through its prompt
template, where `{output_1}` or a chat marker inside an output would be filled in or obeyed.
"""

import hashlib
import json
import logging
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.judging.cache import VerdictCache, entry_key
from implicit_tuning.judging.judge import Judge, Pair, Verdict

logger = logging.getLogger(__name__)

PROMPT_TEMPLATE = "{output_1}\n{output_2}"
REFUSALS_NAMED = 3


class InvalidOutputs(ValueError):
    """The two sets of outputs cannot be compared as they are; the message names what differs."""


class JudgingFailed(RuntimeError):
    """More pairs than allowed stayed without a verdict; the good verdicts are in the cache."""


@dataclass(frozen=True)
class Comparison:
    """One comparison: a row for each instruction, in order, and the summary over them.

    `annotations` rows: index, instruction_sha256, generator_1 and generator_2 (the reference, the
    model under test), length_1 and length_2 (characters), order_switched (whether the judge saw the
    model first; null where it saw nothing), preference (1 to 2, or null), status (ok,
    tie_identical, judge_failed, parse_failed), verdict_logprobs, n_cut, judge_id.
    `summary`: win_rate and standard_error (percent, over instructions), n_wins, n_wins_base,
    n_draws, n_total (judged), n_expected, n_failed, n_empty_model, n_empty_reference, n_cut,
    mean_length_model and mean_length_reference (characters), judge_id, lc_status,
    length_controlled_winrate.
    """

    annotations: list[dict]
    summary: dict


def compare(
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    judge: Judge,
    cache: Path | None = None,
    chunk_size: int = 32,
    max_failed: int = 0,
) -> Comparison:
    """Judges each output against the reference output for the same instruction.

    Both sides are AlpacaEval rows (`instruction`, `output`, `generator`, optionally `index`) in the
    same order. `cache` is the file of this comparison's verdicts, written after each chunk of
    `chunk_size` pairs, so that a fault loses at most one chunk.

    Raises InvalidOutputs before any judging when the two sides do not belong together, and
    JudgingFailed when more than `max_failed` pairs stay without a verdict.
    """
    _check_outputs(outputs, references)
    router = _Router(outputs, references, judge, VerdictCache(cache))
    preferences, metrics = _evaluate(router, chunk_size)
    annotations = [
        _annotation(position, outputs, references, router, preferences)
        for position in range(len(outputs))
    ]
    _check_failures(annotations, judge.judge_id, max_failed)
    return Comparison(annotations, _summary(annotations, outputs, references, metrics))


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes `annotations.jsonl` and `summary.json` (sorted keys) into the existing `folder`."""
    rows = [json.dumps(row, sort_keys=True) + "\n" for row in comparison.annotations]
    summary = json.dumps(comparison.summary, sort_keys=True, indent=2) + "\n"
    (folder / "annotations.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
    (folder / "summary.json").write_text(summary, encoding="utf-8", newline="\n")


class _Router:
    """Turns AlpacaEval's prompts of two handles back into texts and asks cache, then judge."""

    def __init__(
        self,
        outputs: Sequence[Mapping],
        references: Sequence[Mapping],
        judge: Judge,
        cache: VerdictCache,
    ) -> None:
        self.model_rows = [_handled(*item) for item in enumerate(outputs)]
        self.reference_rows = [_handled(*item) for item in enumerate(references)]
        self.judge_id = judge.judge_id
        self.verdicts: dict[str, Verdict] = {}  # by instruction
        self.order_switched: dict[str, bool] = {}  # by instruction
        self._texts = _texts_by_handle(self.model_rows, outputs)
        self._texts |= _texts_by_handle(self.reference_rows, references)
        self._instructions = {row["output"]: row["instruction"] for row in self.reference_rows}
        self._judge = judge
        self._cache = cache

    def complete(self, prompts: Sequence[str]) -> dict[str, list[float]]:
        """AlpacaEval's `fn_completions`: a preference a prompt, NaN where there is none."""
        pairs = [self._pair(prompt) for prompt in prompts]
        keys = [entry_key(self.judge_id, pair) for pair in pairs]
        wanted = [item for item in zip(keys, pairs, strict=True) if not self._cache.get(item[0])]
        fresh = self._ask([pair for _, pair in wanted])
        new = {key: verdict for (key, _), verdict in zip(wanted, fresh, strict=True)}
        self._cache.add(new)
        verdicts = [new.get(key) or self._cache.get(key) for key in keys]
        self.verdicts |= {p.instruction: v for p, v in zip(pairs, verdicts, strict=True)}
        missing = float("nan")
        return {
            "completions": [missing if v.preference is None else v.preference for v in verdicts]
        }

    def _pair(self, prompt: str) -> Pair:
        first, second = prompt.split("\n")
        switched = first not in self._instructions
        instruction = self._instructions[second if switched else first]
        self.order_switched[instruction] = switched
        return Pair(instruction, self._texts[first], self._texts[second])

    def _ask(self, pairs: Sequence[Pair]) -> Sequence[Verdict]:
        if not pairs:
            return []
        verdicts = self._judge.judge(pairs)
        if len(verdicts) != len(pairs):
            raise JudgingFailed(
                f"judge {self.judge_id} returned {len(verdicts)} verdicts for {len(pairs)} pairs"
            )
        return verdicts


def _handled(position: int, row: Mapping) -> dict[str, str]:
    digest = hashlib.sha256(row["output"].encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "instruction": row["instruction"],
        "output": f"{position}-{digest}",
        "generator": row["generator"],
    }


def _texts_by_handle(handled: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, str]:
    return {h["output"]: row["output"] for h, row in zip(handled, rows, strict=True)}


def _evaluate(router: _Router, chunk_size: int) -> tuple[dict[str, float], Mapping[str, float]]:
    """Returns the preference by instruction (NaN where none) and AlpacaEval's metrics."""
    with tempfile.TemporaryDirectory() as folder, _quiet_alpaca_eval():
        import alpaca_eval

        leaderboard, annotations = alpaca_eval.evaluate(
            model_outputs=router.model_rows,
            reference_outputs=router.reference_rows,
            annotators_config=_annotators_config(Path(folder), router.judge_id),
            annotation_kwargs={"chunksize": chunk_size},
            fn_completions=router.complete,
            fn_completion_parser=lambda preference: [preference],
            fn_metric=_win_rate,
            sort_by="win_rate",
            caching_path=None,
            precomputed_leaderboard=None,
            is_cache_leaderboard=False,
            output_path=None,
            is_return_instead_of_print=True,
        )
    preferences = {row["instruction"]: row["preference"] for row in annotations}
    return preferences, leaderboard.iloc[0].to_dict()


def _win_rate(annotations: Sequence[Mapping]) -> dict[str, float]:
    """AlpacaEval's `get_winrate`, which needs NaN in place of None where all pairs failed."""
    from alpaca_eval.metrics import get_winrate

    missing = float("nan")
    preferences = [_number(row["preference"]) for row in annotations]
    return get_winrate([{"preference": missing if p is None else p} for p in preferences])


def _annotators_config(folder: Path, judge_id: str) -> Path:
    """Writes the configuration of the one annotator; AlpacaEval takes it from files only."""
    template = folder / "prompt.txt"
    template.write_text(PROMPT_TEMPLATE)
    config = folder / "configs.yaml"
    config.write_text(json.dumps({judge_id: {"prompt_template": str(template)}}))  # JSON is YAML
    return config


@contextmanager
def _quiet_alpaca_eval() -> Iterator[None]:
    """Keeps alpaca-eval's chatter, and its settings of the root logger, to itself.

    It logs each step on the root logger below ERROR, sets that logger's level on import, and warns
    of `pkg_resources`, which its pins need. Failures are counted by us, from the verdicts.
    """
    root = logging.getLogger()
    level, keeper = root.level, logging.NullHandler()  # with a handler, logging installs no other

    def is_ours(record: logging.LogRecord) -> bool:
        return "alpaca_eval" not in Path(record.pathname).parts or record.levelno >= logging.ERROR

    root.addHandler(keeper)
    root.addFilter(is_ours)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated as an API")
            yield
    finally:
        root.removeFilter(is_ours)
        root.removeHandler(keeper)
        root.setLevel(level)


def _annotation(
    position: int,
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    router: _Router,
    preferences: Mapping[str, float],
) -> dict:
    output, reference = outputs[position], references[position]
    instruction = output["instruction"]
    identical = output["output"] == reference["output"]
    verdict = router.verdicts.get(instruction)
    return {
        "index": output.get("index", position),
        "instruction_sha256": hashlib.sha256(instruction.encode()).hexdigest(),
        "generator_1": reference["generator"],
        "generator_2": output["generator"],
        "length_1": len(reference["output"]),
        "length_2": len(output["output"]),
        "order_switched": router.order_switched.get(instruction),
        "preference": _number(preferences[instruction]),
        "status": "tie_identical" if identical else verdict.status,
        "verdict_logprobs": None if identical else verdict.logprobs,
        "n_cut": 0 if identical else verdict.n_cut,
        "judge_id": router.judge_id,
    }


def _number(value: float | None) -> float | None:
    """Returns a plain float, or None for AlpacaEval's missing values (None and NaN)."""
    return None if value is None or math.isnan(value) else float(value)


def _summary(
    annotations: Sequence[Mapping],
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    metrics: Mapping[str, float],
) -> dict:
    n = len(annotations)
    judge_id = annotations[0]["judge_id"]
    counts = {key: int(metrics[key]) for key in ("n_wins", "n_wins_base", "n_draws", "n_total")}
    return counts | {
        "win_rate": _number(metrics["win_rate"]),
        "standard_error": _number(metrics["standard_error"]),
        "n_expected": n,
        "n_failed": sum(row["preference"] is None for row in annotations),
        "n_empty_model": sum(row["output"] == "" for row in outputs),
        "n_empty_reference": sum(row["output"] == "" for row in references),
        "n_cut": sum(row["n_cut"] for row in annotations),
        "mean_length_model": sum(row["length_2"] for row in annotations) / n,
        "mean_length_reference": sum(row["length_1"] for row in annotations) / n,
        "judge_id": judge_id,
        "lc_status": (
            "not computed: the length model was fitted to gpt-4-turbo's length bias on the 805 "
            f"instructions of AlpacaEval, and judge {judge_id} is not declared to share that bias"
        ),
        "length_controlled_winrate": None,
    }


def _check_failures(annotations: Sequence[Mapping], judge_id: str, max_failed: int) -> None:
    failed = Counter(row["status"] for row in annotations if row["preference"] is None)
    if not failed:
        return
    counts = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
    message = f"{failed.total()} of {len(annotations)} pairs without a verdict ({counts})"
    if failed.total() > max_failed:
        raise JudgingFailed(
            f"{message} from judge {judge_id}, and max_failed is {max_failed}; the good verdicts "
            "are kept in the cache: run again to ask for the failed ones only, or raise max_failed"
        )
    logger.warning("%s; they count in no win rate (max_failed is %d)", message, max_failed)


def _check_outputs(outputs: Sequence[Mapping], references: Sequence[Mapping]) -> None:
    """Raises InvalidOutputs unless both sides answer the same instructions, once, in one order."""
    for side, rows in (("model", outputs), ("reference", references)):
        _check_rows(side, rows)
    ours = [row["instruction"] for row in outputs]
    theirs = [row["instruction"] for row in references]
    if set(ours) != set(theirs):
        raise InvalidOutputs(
            "model and reference outputs answer different instructions: "
            f"only the model {_named(set(ours) - set(theirs))}, "
            f"only the reference {_named(set(theirs) - set(ours))}; generate both from one set"
        )
    for position, (mine, other) in enumerate(zip(outputs, references, strict=True)):
        if (mine["instruction"], mine.get("index")) != (other["instruction"], other.get("index")):
            raise InvalidOutputs(
                "model and reference outputs are in different orders, first at row "
                f"{position}: index {mine.get('index')}, {mine['instruction']!r} and index "
                f"{other.get('index')}, {other['instruction']!r}; keep the evaluation set's order"
            )


def _check_rows(side: str, rows: Sequence[Mapping]) -> None:
    if not rows:
        raise InvalidOutputs(f"there are no {side} outputs to judge")
    for position, row in enumerate(rows):
        for field in ("instruction", "output", "generator"):
            if not isinstance(row.get(field), str):
                raise InvalidOutputs(
                    f"{side} row {position}: `{field}` is {row.get(field)!r}, not a text "
                    "(an empty output must be the empty string)"
                )
    generators = {row["generator"] for row in rows}
    if len(generators) > 1:
        raise InvalidOutputs(f"{side} outputs come from several generators: {sorted(generators)}")
    counts = Counter(row["instruction"] for row in rows)
    repeated = {instruction for instruction, count in counts.items() if count > 1}
    if repeated:
        raise InvalidOutputs(f"{side} outputs repeat instructions: {_named(repeated)}")
    indexes = [row["index"] for row in rows if "index" in row]
    if indexes != sorted(indexes) or len(indexes) not in (0, len(rows)):
        raise InvalidOutputs(f"{side} rows are not in the order of their `index`")


def _named(instructions: set[str]) -> str:
    """Returns their number and the first few of them, for a message."""
    if not instructions:
        return "0"
    shown = [repr(text) for text in sorted(instructions)[:REFUSALS_NAMED]]
    more = ["..."] if len(instructions) > REFUSALS_NAMED else []
    return f"{len(instructions)} ({', '.join(shown + more)})"
