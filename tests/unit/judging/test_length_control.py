"""Length-controlled win rates: under all their conditions, or not at all."""

import csv
import random
import socket
import warnings

import pytest
import sklearn

from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import Verdict
from implicit_tuning.judging.length_control import LANDMARKS, N_INSTRUCTIONS, LengthControl

GAMED_COLUMNS = (
    "index",
    "preference",
    "std_delta_len",
    "instruction_difficulty",
    "not_gamed_baseline",
    "model",
)


class Verbose:
    """Prefers long outputs; `missing` names instructions without a verdict."""

    judge_id = "verbose"

    def __init__(self, missing=()):
        self._missing = missing

    def judge(self, pairs):
        return [
            Verdict(None, "judge_failed")
            if pair.instruction in self._missing
            else Verdict(1.8 if len(pair.output_2) > len(pair.output_1) else 1.2)
            for pair in pairs
        ]


def instructions(count=N_INSTRUCTIONS):
    return [LANDMARKS.get(place, f"question {place}") for place in range(count)]


def rows(generator, mean_length, count=N_INSTRUCTIONS):
    draw = random.Random(generator)
    return [
        {
            "index": place,
            "instruction": text,
            "output": "x" * max(1, round(draw.gauss(mean_length, 200))),
            "generator": generator,
        }
        for place, text in enumerate(instructions(count))
    ]


@pytest.fixture(scope="module")
def df_gamed(tmp_path_factory):
    """A file in the schema of AlpacaEval's: two baselines told to be concise and verbose."""
    draw = random.Random(0)
    difficulties = [draw.gauss(0, 1) for _ in range(N_INSTRUCTIONS)]
    path = tmp_path_factory.mktemp("gamed") / "df_gamed.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(GAMED_COLUMNS)
        for model, shift in (("baseline_concise", 0.5), ("baseline_verbose", -0.5)):
            for place, difficulty in enumerate(difficulties):
                preference = min(1.0, max(0.0, 0.5 - 0.3 * shift + draw.gauss(0, 0.2)))
                delta = shift + draw.gauss(0, 0.3)
                writer.writerow([place, preference, delta, difficulty, False, model])
    return path


def summary(outputs, references, control, judge=None, **options):
    options |= {"length_control": control, "chunk_size": 200}
    return judge_outputs(outputs, references, judge or Verbose(), **options).summary


def test_a_preference_for_length_is_taken_out(df_gamed, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    settings = sklearn.get_config()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longer = summary(rows("long", 900), rows("short", 600), LengthControl(df_gamed))
    assert longer["lc_status"] == "computed: length_controlled_v1"
    assert longer["win_rate"] > 65
    assert 45 < longer["length_controlled_winrate"] < longer["win_rate"] - 5
    assert sklearn.get_config() == settings


def test_the_number_is_that_of_alpaca_eval_s_own_function(df_gamed, monkeypatch):
    outputs, references = rows("long", 900), rows("short", 600)
    comparison = judge_outputs(
        outputs, references, Verbose(), length_control=LengthControl(df_gamed), chunk_size=200
    )
    import alpaca_eval.metrics.glm_winrate as theirs
    import pandas as pd

    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: df_gamed)
    frame = pd.DataFrame(
        {
            "preference": [row["preference"] for row in comparison.annotations],
            "index": range(N_INSTRUCTIONS),
            "output_1": [row["output"] for row in references],
            "output_2": [row["output"] for row in outputs],
            "generator_1": "short",
            "generator_2": "long",
        }
    )
    with warnings.catch_warnings(), sklearn.config_context():
        warnings.simplefilter("ignore")
        metrics = theirs.get_length_controlled_winrate(frame, save_weights_dir=None)
    expected = pytest.approx(metrics["length_controlled_winrate"])
    assert comparison.summary["length_controlled_winrate"] == expected


def without_landmark(side):
    return [side[0] | {"instruction": "Name a color."}, *side[1:]]


def shifted(side):
    return [row | {"index": row["index"] + 1} for row in side]


@pytest.mark.parametrize(
    ("change", "declared", "given", "reason"),
    [
        (list, False, True, "judge verbose is not declared"),
        (list, True, False, "no local df_gamed.csv"),
        (lambda side: side[:56], True, True, "56 pairs, not AlpacaEval's 805"),
        (without_landmark, True, True, "not those of AlpacaEval in its own order"),
        (shifted, True, True, "not those of AlpacaEval in its own order"),
    ],
)
def test_without_a_condition_there_is_no_number_but_a_reason(
    df_gamed, change, declared, given, reason
):
    control = LengthControl(df_gamed if given else None) if declared else None
    found = summary(change(rows("long", 900)), change(rows("short", 600)), control)
    assert found["length_controlled_winrate"] is None
    assert found["lc_status"].startswith("not computed: ")
    assert reason in found["lc_status"]
    assert found["win_rate"] > 60 and found["length_ratio"] > 1.2 and found["n_total"] > 50


def test_a_failed_verdict_leaves_no_number(df_gamed):
    judge = Verbose(missing=["question 7"])
    found = summary(
        rows("long", 900), rows("short", 600), LengthControl(df_gamed), judge, max_failed=1
    )
    assert found["length_controlled_winrate"] is None
    assert found["lc_status"] == "not computed: 1 pairs have no verdict"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,model\n0,a\n", "lacks instruction_difficulty, not_gamed_baseline, preference"),
        (
            ",".join(GAMED_COLUMNS) + "\n1,0.5,0.1,0.2,False,a\n",
            "does not open with index 0 to 804",
        ),
    ],
)
def test_another_file_than_alpaca_eval_s_is_refused(tmp_path, text, message):
    file = tmp_path / "df_gamed.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        summary(rows("long", 900), rows("short", 600), LengthControl(file))
