"""Two lists of outputs under a judge, without a config and without the workflow.

`alpaca.judge_outputs` does the comparing; here the judge may be given by its settings or as a function,
and the win rate gets its interval.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from implicit_tuning.analysis.statistics import summarise
from implicit_tuning.judging import alpaca
from implicit_tuning.judging.alpaca import Comparison
from implicit_tuning.judging.judge import Judge, Needs, Pair, Verdict
from implicit_tuning.judging.kinds import (
    JUDGE_KINDS,
    comparison_settings,
    identity_settings,
    make_judge,
    runtime_settings,
)
from implicit_tuning.judging.length_control import LengthControl
from implicit_tuning.models.chat import PAPER_FORMAT

Preference = Callable[[str, str, str], float]

# Keys of a config entry that only the workflow can follow.
OF_THE_WORKFLOW = frozenset({"calibration", "hub", "shape", "licence", "gated"})


def compare(
    outputs: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    judge: Judge | Preference | Mapping[str, Any],
    cache: str | Path | None = None,
) -> Comparison:
    """Judge a model's outputs against those of a reference, instruction by instruction.

    AlpacaEval does the pairing, draws in which order the judge sees two outputs, and calls equal
    outputs a draw. Returns rows and summary as `Comparison` says; the summary also has the 95 %
    interval of the win rate, `win_rate_low` and `win_rate_high` (percent), None where no pair has a
    verdict.

    >>> def shorter(instruction, output_1, output_2):
    ...     return 1.0 if len(output_1) < len(output_2) else 2.0
    >>> mine = [
    ...     {"instruction": "Name a color.", "output": "Red."},
    ...     {"instruction": "Name a bird.", "output": "A bird is the wren."},
    ... ]
    >>> theirs = [
    ...     {"instruction": "Name a color.", "output": "It is blue."},
    ...     {"instruction": "Name a bird.", "output": "Wren."},
    ... ]
    >>> summary = compare(mine, theirs, shorter).summary
    >>> summary["win_rate"], summary["n_wins"], summary["n_wins_base"]
    (50.0, 1, 1)

    Args:
        outputs, references: AlpacaEval rows in one order: `instruction` and `output`, optionally
            `generator` (default "model" and "reference") and `index`.
        judge: one of
            - the settings of a judge as under `judges` of a config, such as
              `{"kind": "openai", "model": "gpt-4.1-2025-04-14"}` (the key is read from the
              environment), `{"kind": "hf_logits", "path": "models/judge", "batch_size": 4, "dtype":
              "bfloat16", "device": "cuda"}`; of kind `mean_logprob`, `base` is a model folder;
            - a function of (instruction, output_1, output_2), in the order drawn, that returns 1
              when the first is better, 2 when the second is, 1.5 for a draw, or a number between;
            - a `Judge`, such as `OracleJudge(truths)`.
        cache: file that keeps the verdicts of this comparison, so that a judging that stopped asks
            for the rest only. `<cache>.spending` beside it keeps what a judge with `max_usd` cost.

    Raises:
        TypeError: `judge` is none of these.
        ValueError: settings of no judge; outputs that do not belong together (InvalidOutputs).
        JudgingFailed: more than `max_failed` pairs stayed without a verdict (settings; default 0).
    """
    settings = judge if isinstance(judge, Mapping) else {}
    cache = None if cache is None else Path(cache)
    use = comparison_settings(settings)
    comparison = alpaca.judge_outputs(
        _rows(outputs, "model"),
        _rows(references, "reference"),
        _judge(judge, cache),
        cache=cache,
        max_failed=use["max_failed"],
        both_orders=use["both_orders"],
        length_control=_length_control(settings) if use["length_controlled"] else None,
    )
    return replace(comparison, summary=comparison.summary | _interval(comparison))


class FunctionJudge:
    """A judge from a function of (instruction, output_1, output_2) that returns a preference."""

    def __init__(self, prefer: Preference) -> None:
        self._prefer = prefer
        self.judge_id = f"function-{getattr(prefer, '__qualname__', type(prefer).__qualname__)}"

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [Verdict(self._prefer(*pair)) for pair in pairs]


def _rows(rows: Sequence[Mapping[str, Any]], generator: str) -> list[dict[str, Any]]:
    return [{"generator": generator, **row} for row in rows]


def _judge(judge: Judge | Preference | Mapping[str, Any], cache: Path | None) -> Judge:
    if isinstance(judge, Mapping):
        return _judge_by_settings(judge, cache)
    if isinstance(judge, Judge):
        return judge
    if not callable(judge):
        raise TypeError(
            f"judge is {judge!r}: give settings such as {{'kind': 'openai', 'model': ...}}, a "
            "function of (instruction, output_1, output_2), or an object with judge_id and judge"
        )
    if cache is not None:
        raise ValueError(
            "cache: a function has no identity by which its verdicts could be kept: give a judge "
            "with a judge_id, or no cache"
        )
    return FunctionJudge(judge)


def _judge_by_settings(settings: Mapping[str, Any], cache: Path | None) -> Judge:
    if problems := list(_problems(settings, cache)):
        raise ValueError("judge: " + "; ".join(problems))
    needs = Needs(
        truths=dict,
        model=lambda: Path(settings[_model_key(settings["kind"])]),
        chat=asdict(PAPER_FORMAT),
        spending=Path(f"{cache}.spending"),
    )
    return make_judge(identity_settings(settings), runtime_settings(settings), needs)


def _problems(settings: Mapping[str, Any], cache: Path | None) -> Iterator[str]:
    """What is wrong with a judge's settings; each names the key, and what to do."""
    name = settings.get("kind", "")
    if name == "oracle":
        yield "kind 'oracle' needs truths: give implicit_tuning.OracleJudge(truths) instead"
        return
    if name not in JUDGE_KINDS:
        yield f"kind is {settings.get('kind')!r}: choose from {', '.join(sorted(set(JUDGE_KINDS) - {'oracle'}))}"
        return
    kind = JUDGE_KINDS[name]
    model = _model_key(name)
    for key in dict.fromkeys([*kind.required, *filter(None, [model])]):
        if key not in settings:
            yield f"{key} is missing: kind '{name}' needs it"
    if model in settings and not Path(settings[model]).is_dir():
        yield f"{model} is {settings[model]!r}: give the folder of the model that judges"
    for key in sorted(set(settings) - (kind.keys - OF_THE_WORKFLOW)):
        yield f"{key} is {settings[key]!r}: kind '{name}' has no such key here; remove it"
    for error in Draft202012Validator({"properties": kind.schema}).iter_errors(settings):
        yield f"{error.path[0]}: {error.message}"
    for key in sorted(set(kind.together) & set(settings)):
        for other in sorted(set(kind.together[key]) - set(settings)):
            yield f"{other} is missing: {key} needs it beside it"
    if settings.get("max_usd") is not None and cache is None:
        yield "max_usd needs a cache, beside which it keeps what was spent: give cache"


def _model_key(kind: str) -> str:
    """The key with the folder of the model that judges; empty for a kind without one."""
    return "path" if JUDGE_KINDS[kind].own_model else "base" if JUDGE_KINDS[kind].loads_base else ""


def _length_control(settings: Mapping[str, Any]) -> LengthControl:
    file = settings.get("df_gamed")
    return LengthControl(None if file is None else Path(file))


def _interval(comparison: Comparison) -> dict[str, float | None]:
    if not comparison.summary["n_total"]:
        return {"win_rate_low": None, "win_rate_high": None}
    rate = summarise(comparison.annotations)
    return {"win_rate_low": rate.low, "win_rate_high": rate.high}
