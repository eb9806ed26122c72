"""AlpacaEval's length-controlled win rate, only where it means something.

Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475): a logistic model of the verdicts,
with the difference of lengths taken out. It was fitted to gpt-4-turbo's taste for length on the 805
instructions of AlpacaEval, in their order; for anything else AlpacaEval's function returns a number
all the same. So it is asked under conditions, and what is missing stands in `lc_status`. Its
`lc_standard_error` is the spread of fitted values, no sampling error, and is not kept.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODEL = "length_controlled_v1"
N_INSTRUCTIONS = 805
# Enough to tell AlpacaEval's instructions, in its order, from 805 others.
LANDMARKS = {
    0: "What are the names of some famous actors that started their careers on Broadway?",
    1: "How did US states get their names?",
    804: "Write a symphony concert review, discussing the orchestra's performance and overall "
    "audience experience.",
}
GAMED_COLUMNS = frozenset(
    {
        "model",
        "index",
        "preference",
        "std_delta_len",
        "instruction_difficulty",
        "not_gamed_baseline",
    }
)


@dataclass(frozen=True)
class LengthControl:
    """Says that the judge shares gpt-4-turbo's length bias, and where AlpacaEval's data lies.

    `df_gamed` is a local copy of `df_gamed.csv` of the data set tatsu-lab/alpaca_eval, None where
    there is none: it is never downloaded.
    """

    df_gamed: Path | None


def length_controlled_fields(
    annotations: Sequence[Mapping],
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    control: LengthControl | None,
) -> dict:
    """Returns `length_controlled_winrate` (percent, or None) and `lc_status`, which says why.

    Raises ValueError for a `df_gamed.csv` that is not the one of AlpacaEval.
    """
    reason = _obstacle(annotations, outputs, control)
    if reason or control is None or control.df_gamed is None:
        return {"lc_status": f"not computed: {reason}", "length_controlled_winrate": None}
    rate = _length_controlled_winrate(annotations, outputs, references, control.df_gamed)
    return {"lc_status": f"computed: {MODEL}", "length_controlled_winrate": rate}


def _obstacle(
    annotations: Sequence[Mapping], outputs: Sequence[Mapping], control: LengthControl | None
) -> str | None:
    """Returns the first condition that does not hold, None when all do."""
    if control is None:
        return (
            f"judge {annotations[0]['judge_id']} is not declared (`length_controlled`) to share "
            "gpt-4-turbo's length bias, to which the length model was fitted"
        )
    if control.df_gamed is None:
        return "there is no local df_gamed.csv (`df_gamed`), and it is never downloaded"
    if len(annotations) != N_INSTRUCTIONS:
        return f"there are {len(annotations)} pairs, not AlpacaEval's {N_INSTRUCTIONS}"
    known = all(outputs[place]["instruction"] == text for place, text in LANDMARKS.items())
    if not known or [row["index"] for row in annotations] != list(range(N_INSTRUCTIONS)):
        return "the instructions are not those of AlpacaEval in its own order"
    failed = sum(row["preference"] is None for row in annotations)
    return f"{failed} pairs have no verdict" if failed else None


def _length_controlled_winrate(
    annotations: Sequence[Mapping],
    outputs: Sequence[Mapping],
    references: Sequence[Mapping],
    df_gamed: Path,
) -> float:
    import sklearn
    from alpaca_eval.metrics import get_length_controlled_winrate

    _check_gamed(df_gamed)
    rows = [
        {
            "index": row["index"],
            "preference": row["preference"],
            "output_1": reference["output"],
            "output_2": output["output"],
            "generator_1": reference["generator"],
            "generator_2": output["generator"],
        }
        for row, output, reference in zip(annotations, outputs, references, strict=True)
    ]
    # AlpacaEval changes scikit-learn's settings for good; the context puts them back.
    with sklearn.config_context(), warnings.catch_warnings(), _given(df_gamed):
        # It calls scikit-learn as versions from 1.10 on refuse; the project's pin stays below.
        warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
        metrics = get_length_controlled_winrate(
            rows, glm_name=MODEL, save_weights_dir=None, is_warn_extreme_changes=False
        )
    return float(metrics["length_controlled_winrate"])


def _check_gamed(df_gamed: Path) -> None:
    import pandas as pd

    gamed = pd.read_csv(df_gamed)
    missing = sorted(GAMED_COLUMNS - set(gamed.columns))
    first = [] if missing else list(gamed["index"][:N_INSTRUCTIONS])
    if first != list(range(N_INSTRUCTIONS)):
        what = f"lacks {', '.join(missing)}" if missing else "does not open with index 0 to 804"
        raise ValueError(
            f"df_gamed: {df_gamed} {what}: take df_gamed.csv of the data set tatsu-lab/alpaca_eval"
        )


@contextmanager
def _given(df_gamed: Path) -> Iterator[None]:
    """AlpacaEval fetches df_gamed.csv from the hub and takes no path: hand it the local file."""
    from alpaca_eval.metrics import glm_winrate

    fetch = glm_winrate.hf_hub_download
    glm_winrate.hf_hub_download = lambda **_: str(df_gamed)
    try:
        yield
    finally:
        glm_winrate.hf_hub_download = fetch
