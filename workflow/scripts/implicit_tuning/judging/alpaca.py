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
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.judging.annotations import Pass, annotate, number, summarise_rows, win_rate
from implicit_tuning.judging.cache import VerdictCache
from implicit_tuning.judging.judge import Judge, JudgingFailed, Pair, Verdict, verdicts_of
from implicit_tuning.judging.length_control import LengthControl, length_controlled_fields
from implicit_tuning.judging.outputs import check_outputs
from implicit_tuning.remote.answer_cache import question_key

logger = logging.getLogger(__name__)

PROMPT_TEMPLATE = "{output_1}\n{output_2}"


@dataclass(frozen=True)
class Comparison:
    """One comparison: a row for each instruction, in order, and the summary over them.

    `annotations` rows: index, instruction_sha256, generator_1 and generator_2 (the reference, the
    model under test), length_1 and length_2 (characters), order_switched (whether the judge saw the
    model first; null where it saw nothing), preference (1 to 2, or null; the mean of both orders
    where both were judged), preferences (then those two, the drawn order first), status (ok,
    tie_identical, judge_failed, parse_failed), verdict_logprobs (of the drawn order),
    verdict_logprobs_other_order, n_cut, judge_id.
    `summary`: win_rate and standard_error (percent, over instructions), n_wins, n_wins_base,
    n_draws, n_total (judged), n_expected, n_failed, n_empty_model, n_empty_reference, n_cut,
    n_with_logprobs (a language model's verdicts without them are discrete, not weighted),
    mean_length_model and mean_length_reference (characters), length_ratio (model over reference),
    position_consistency (percent, see `annotations`), judge_id, lc_status and
    length_controlled_winrate (see `length_control`).
    """

    annotations: list[dict]
    summary: dict


def judge_outputs(
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    judge: Judge,
    cache: Path | None = None,
    chunk_size: int = 32,
    max_failed: int = 0,
    both_orders: bool = False,
    length_control: LengthControl | None = None,
    earlier_caches: Sequence[Path] = (),
) -> Comparison:
    """Judges each output against the reference output for the same instruction.

    Both sides are AlpacaEval rows (`instruction`, `output`, `generator`, optionally `index`) in the
    same order. `cache` is the file of this comparison's verdicts; what `earlier_caches` have of them is
    carried over to it. A judge that streams is given all
    pairs at once, and each verdict is in the file as soon as it is there; another one is given
    `chunk_size` pairs at a time, so that a fault loses at most one chunk. With `both_orders` each pair
    is judged twice, the second time with the outputs' places exchanged, and the preferences averaged;
    a judge that sets `both_orders` itself is always asked so.

    Raises InvalidOutputs before any judging when the two sides do not belong together, and
    JudgingFailed when more than `max_failed` pairs stay without a verdict.
    """
    check_outputs(outputs, references)
    verdicts = VerdictCache(cache, earlier_caches)
    passes = [_judge_once(outputs, references, judge, verdicts, chunk_size)]
    if both_orders or getattr(judge, "both_orders", False):
        # AlpacaEval draws a pair's order from its instruction: exchanged roles are the other order.
        other = _judge_once(references, outputs, judge, verdicts, chunk_size)
        passes.append(other.turned())
    annotations = annotate(outputs, references, passes, judge.judge_id)
    reason = next((v.reason for once in passes for v in once.verdicts.values() if v.reason), "")
    _check_failures(annotations, reason, judge.judge_id, max_failed, has_cache=cache is not None)
    with _quiet_alpaca_eval():
        summary = summarise_rows(annotations, outputs, references)
        summary |= length_controlled_fields(annotations, outputs, references, length_control)
    return Comparison(annotations, summary)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes `annotations.jsonl` and `summary.json` (sorted keys) into the existing `folder`."""
    rows = [json.dumps(row, sort_keys=True) + "\n" for row in comparison.annotations]
    summary = json.dumps(comparison.summary, sort_keys=True, indent=2) + "\n"
    (folder / "annotations.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
    (folder / "summary.json").write_text(summary, encoding="utf-8", newline="\n")


def _judge_once(
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    judge: Judge,
    verdicts: VerdictCache,
    chunk_size: int,
) -> Pass:
    """Judges every pair in the order that AlpacaEval draws for it."""
    router = _Router(outputs, references, judge, verdicts)
    preferences = _evaluate(router, len(outputs) if hasattr(judge, "stream") else chunk_size)
    return Pass(router.verdicts, router.order_switched, preferences)


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
        keys = [question_key(self.judge_id, pair) for pair in pairs]
        wanted = [p for p, key in zip(pairs, keys, strict=True) if not self._cache.get(key)]
        new = {}
        for pair, verdict in verdicts_of(self._judge, wanted):
            key = question_key(self.judge_id, pair)
            new[key] = verdict
            self._cache.add({key: verdict})
        verdicts = [new.get(key) or self._kept(key) for key in keys]
        self.verdicts |= {p.instruction: v for p, v in zip(pairs, verdicts, strict=True)}
        missing = float("nan")
        return {
            "completions": [missing if v.preference is None else v.preference for v in verdicts]
        }

    def _kept(self, key: str) -> Verdict:
        verdict = self._cache.get(key)
        if verdict is None:
            raise JudgingFailed(
                f"judge {self.judge_id} has left out a pair that it was asked about"
            )
        return verdict

    def _pair(self, prompt: str) -> Pair:
        first, second = prompt.split("\n")
        switched = first not in self._instructions
        instruction = self._instructions[second if switched else first]
        self.order_switched[instruction] = switched
        return Pair(instruction, self._texts[first], self._texts[second])


def _handled(position: int, row: Mapping) -> dict[str, str]:
    digest = hashlib.sha256(row["output"].encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "instruction": row["instruction"],
        "output": f"{position}-{digest}",
        "generator": row["generator"],
    }


def _texts_by_handle(handled: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, str]:
    return {h["output"]: row["output"] for h, row in zip(handled, rows, strict=True)}


def _evaluate(router: _Router, chunk_size: int) -> dict[str, float | None]:
    """Returns AlpacaEval's preference by instruction, None where there is none."""
    with tempfile.TemporaryDirectory() as folder, _quiet_alpaca_eval():
        import alpaca_eval

        _, annotations = alpaca_eval.evaluate(
            model_outputs=router.model_rows,
            reference_outputs=router.reference_rows,
            annotators_config=_annotators_config(Path(folder), router.judge_id),
            annotation_kwargs={"chunksize": chunk_size},
            fn_completions=router.complete,
            fn_completion_parser=lambda preference: [preference],
            fn_metric=win_rate,
            sort_by="win_rate",
            caching_path=None,
            precomputed_leaderboard=None,
            is_cache_leaderboard=False,
            output_path=None,
            is_return_instead_of_print=True,
        )
    return {row["instruction"]: number(row["preference"]) for row in annotations}


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
    # With a handler on the root its calls of logging install no other. Where a program has set up
    # none, it is the one that logging falls back on, or our own warnings would be lost.
    fallback = None if logger.hasHandlers() else logging.lastResort
    level, keeper = root.level, fallback or logging.NullHandler()

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


def _check_failures(
    annotations: Sequence[Mapping], reason: str, judge_id: str, max_failed: int, has_cache: bool
) -> None:
    failed = Counter(row["status"] for row in annotations if row["preference"] is None)
    if not failed:
        return
    counts = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
    why = f"{counts}; the first: {reason}" if reason else counts
    message = f"{failed.total()} of {len(annotations)} pairs without a verdict ({why})"
    if failed.total() > max_failed:
        kept = ", which asks for the failed ones only (the good verdicts are kept in the cache),"
        raise JudgingFailed(
            f"{message} from judge {judge_id}, and max_failed is {max_failed}: run again"
            f"{kept if has_cache else ''} or raise max_failed"
        )
    logger.warning("%s; they count in no win rate (max_failed is %d)", message, max_failed)
