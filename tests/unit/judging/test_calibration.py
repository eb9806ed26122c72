"""Calibration of a judge: measures against plain counts, intervals, files, resuming."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from implicit_tuning.commands.calibrate import (
    calibrate_files,
    calibration_folder,
    describe_calibration,
)
from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.calibration import MEANINGS, calibrate, write_calibration
from implicit_tuning.judging.judge import Verdict
from implicit_tuning.judging.stored_verdicts import StoredPair, Yardstick, read_yardstick
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import NodePaths

ANNOTATIONS = Path(__file__).parents[2] / "fixtures/annotations"
FILES = sorted(ANNOTATIONS.glob("*/annotations.json"))


class Rule:
    """A judge by a function from a pair to a preference (None: no verdict)."""

    def __init__(self, prefer, judge_id="rule"):
        self.judge_id, self.seen, self._prefer = judge_id, [], prefer

    def judge(self, pairs):
        self.seen += pairs
        found = [self._prefer(pair) for pair in pairs]
        return [Verdict(p, "ok" if p is not None else "judge_failed") for p in found]


def longer_wins(pair):
    difference = len(pair.output_2) - len(pair.output_1)
    return 1.5 if difference == 0 else 1.9 if difference > 0 else 1.1


def held_against(yardstick, judge, **options):
    return calibrate("mine", yardstick, partial(judge_outputs, judge=judge, **options))


def measured(calibration, name):
    return calibration.measures[name].value


@pytest.fixture(scope="module")
def released():
    return read_yardstick(FILES)


def like(yardstick):
    """A judge that repeats the yardstick's verdicts, whatever the order."""
    known = {}
    for pair in yardstick.pairs:
        known[pair.instruction, pair.output_1, pair.output_2] = pair.preference
        known[pair.instruction, pair.output_2, pair.output_1] = 3 - pair.preference
    return Rule(lambda pair: known[tuple(pair)])


def test_a_judge_with_the_yardstick_s_verdicts_agrees_wholly(released):
    calibration = held_against(released, like(released))
    assert (calibration.n_pairs, calibration.n_instructions, calibration.n_models) == (12, 4, 3)
    assert measured(calibration, "agreement") == 100.0
    assert measured(calibration, "spearman") == pytest.approx(1.0)
    assert measured(calibration, "longer_judge") == measured(calibration, "longer_yardstick")
    # Full agreement on four instructions is no certainty: 1 - (alpha / 2) ** (1 / n), exact.
    assert calibration.measures["agreement"].low == pytest.approx(100 * 0.025 ** (1 / 4))
    for row in calibration.models:
        assert row["judge"] == pytest.approx(row["yardstick"])


def test_a_contrary_judge_agrees_nowhere(released):
    contrary = like(released)
    prefer = contrary._prefer
    calibration = held_against(released, Rule(lambda pair: 3 - prefer(pair)))
    assert measured(calibration, "agreement") == 0.0
    assert measured(calibration, "spearman") == pytest.approx(-1.0)


def test_measures_are_plain_counts(released):
    """Against a loop over the files, which knows nothing of our arrays."""
    calibration = held_against(released, Rule(longer_wins))
    rows = [row for file in FILES for row in json.loads(file.read_text())]
    longer_by = [len(row["output_2"]) - len(row["output_1"]) for row in rows]
    agreeing = sum(
        (d > 0) == (row["preference"] > 1.5) for d, row in zip(longer_by, rows, strict=True)
    )
    assert 0 not in longer_by
    assert measured(calibration, "agreement") == pytest.approx(100 * agreeing / 12)
    assert measured(calibration, "longer_judge") == 100.0
    assert measured(calibration, "longer_yardstick") == pytest.approx(100 * agreeing / 12)
    theirs = [row["preference"] for row in rows]
    expected = spearmanr(theirs, longer_by).statistic
    assert measured(calibration, "length_correlation_yardstick") == pytest.approx(expected)
    for row in calibration.models:
        own = [r["preference"] - 1 for r in rows if r["generator_2"] == row["model"]]
        assert row["yardstick"] == pytest.approx(100 * sum(own) / len(own))
        assert row["n"] == 4
    rates = [(row["yardstick"], row["judge"]) for row in calibration.models]
    assert measured(calibration, "spearman") == pytest.approx(
        spearmanr(*zip(*rates, strict=True)).statistic
    )


def test_a_draw_is_half_an_agreement():
    pairs = [
        StoredPair(f"q{n}", "a", "bb", "r", "m", p) for n, p in enumerate((1.5, 1.5, 2.0, 1.0))
    ]
    yardstick = Yardstick("y", {}, pairs, 0, 0)
    drawn = held_against(yardstick, Rule(lambda pair: 1.5))
    assert measured(drawn, "agreement") == pytest.approx(100 * (1 + 1 + 0.5 + 0.5) / 4)
    assert measured(drawn, "longer_judge") == 50.0


def test_position_bias_shows_in_the_share_of_the_first_shown(released):
    first = Rule(lambda pair: 1.2)
    one_order = held_against(released, first)
    assert measured(one_order, "first_shown") == 100.0
    assert one_order.measures["position_consistency"].value is None
    both = held_against(released, Rule(lambda pair: 1.2), both_orders=True)
    assert measured(both, "first_shown") == 100.0
    assert measured(both, "position_consistency") == 0.0
    fair = held_against(released, Rule(longer_wins), both_orders=True)
    assert measured(fair, "first_shown") == 50.0
    assert measured(fair, "position_consistency") == 100.0


def test_few_models_have_no_rank_correlation():
    calibration = held_against(read_yardstick(FILES[:2]), Rule(longer_wins))
    assert calibration.n_models == 2
    assert calibration.measures["spearman"].value is None
    people = held_against(
        read_yardstick([ANNOTATIONS / "human_crossannotations.json"]), Rule(longer_wins)
    )
    assert (people.n_pairs, people.n_models) == (4, 0)
    assert people.measures["agreement"].value is not None


def test_models_that_answer_alike_are_no_further_evidence():
    """Four copies of one model: as wide an interval as one of them, not half as wide."""

    def yardstick(models):
        pairs = [
            StoredPair(f"q{n}", "a", "bb", "r", model, 2.0 if n % 3 else 1.0)
            for model in models
            for n in range(60)
        ]
        return Yardstick("y", {}, pairs, 0, 0)

    alone, copies = (
        held_against(yardstick(models), Rule(longer_wins)).measures["agreement"]
        for models in (["m1"], ["m1", "m2", "m3", "m4"])
    )
    assert copies.value == pytest.approx(alone.value) == pytest.approx(200 / 3)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.1)


def noisy_yardstick(rng, n_instructions, n_models, accuracy):
    """A yardstick whose verdicts equal those of `longer_wins` with a chance that differs by
    instruction, `accuracy` in the mean."""
    pairs = []
    for instruction in range(n_instructions):
        chance = accuracy + rng.choice([-0.2, 0.2])
        for model in range(n_models):
            length = int(rng.integers(1, 9))
            longer = 2.0 if length > 4 else 1.0
            verdict = longer if rng.random() < chance else 3 - longer
            output = "x" * (length + (length > 4))
            pairs.append(StoredPair(f"q{instruction}", "y" * 5, output, "r", f"m{model}", verdict))
    return Yardstick("noisy", {}, [p for p in pairs if len(p.output_2) != 5], 0, 0)


@pytest.mark.long
def test_the_interval_of_the_agreement_covers_it(monkeypatch):
    """Pairs of an instruction are alike: 60 instructions, 4 models, true agreement 70 %."""
    monkeypatch.setattr("implicit_tuning.judging.calibration.RESAMPLES", 199)
    rng = np.random.default_rng(1)
    covered = 0
    rounds = 60
    for _ in range(rounds):
        measure = held_against(
            noisy_yardstick(rng, 60, 4, 0.7), Rule(longer_wins), chunk_size=60
        ).measures["agreement"]
        covered += measure.low <= 70 <= measure.high
    # 95 % of 60 are 57; fewer than 51 or all of very wide ones would speak against it.
    assert covered >= 51
    assert measure.high - measure.low < 20


def test_pairs_without_a_verdict_are_counted_and_left_out(released):
    missing = {released.pairs[0].output_2, released.pairs[5].output_2}

    def prefer(pair):
        return None if missing & {pair.output_1, pair.output_2} else longer_wins(pair)

    calibration = held_against(released, Rule(prefer), max_failed=1)
    assert (calibration.n_pairs, calibration.n_failed) == (10, 2)
    with pytest.raises(ValueError, match="gave no verdict about any pair"):
        held_against(released, Rule(lambda pair: None), max_failed=4)


def test_a_calibration_that_stopped_asks_for_the_rest_only(released, tmp_path):
    def dying(pair):
        if "jam" in pair.instruction:
            raise ConnectionError("judge went away")
        return longer_wins(pair)

    cache = tmp_path / "verdicts.jsonl"
    with pytest.raises(ConnectionError):
        held_against(released, Rule(dying), cache=cache, chunk_size=1)
    judge = Rule(longer_wins)
    resumed = held_against(released, judge, cache=cache)
    assert len(judge.seen) == 9
    assert resumed == held_against(released, Rule(longer_wins))


def test_equal_calibrations_are_equal_bytes(released, tmp_path):
    for name in ("first", "second"):
        write_calibration(held_against(released, Rule(longer_wins)), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    content = json.loads((tmp_path / "first").read_text())
    assert list(content["measures"]) == sorted(MEANINGS)
    assert content["measures"]["spearman"]["unit"] == ""


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def planned(repository, tmp_path):
    """Function from a judge's config entry to a comparison's node and the paths of results."""

    def make(entry, *overrides):
        config = read_config(
            [repository / "tests/fixtures/smallest.yaml"],
            repository,
            ["judge=mine", f"judges={json.dumps({'mine': entry})}", *overrides],
        )
        plan = build_plan(config, DigestMemory(tmp_path / "digests.json"))
        return plan.stage("judge")[0], NodePaths(tmp_path / "results")

    return make


LIKELY = {"kind": "mean_logprob", "base": "organism-llama", "batch_size": 8}


def test_the_command_writes_table_figure_and_the_file_for_tables(planned, capsys):
    node, paths = planned(LIKELY)
    calibration = calibrate_files("mine", [str(file) for file in FILES], node, paths)
    folder = calibration_folder("mine", paths)
    assert {path.name for path in folder.iterdir()} == {
        "calibration.json", "calibration.png", "calibration.svg", "lengths.csv", "measures.csv",
        "measures.md", "models.csv",
    }  # fmt: skip
    with (folder / "measures.csv").open() as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(MEANINGS)
    agreement = calibration.measures["agreement"]
    assert float(rows["agreement"]["value"]) == pytest.approx(agreement.value, abs=1e-3)
    text = (folder / "measures.md").read_text()
    assert text == describe_calibration(calibration) + "\n"
    shown = f"{agreement.value:.1f} % [{agreement.low:.1f}, {agreement.high:.1f}]"
    assert shown in text
    assert "judge mine against weighted_alpaca_eval_gpt4_turbo: 12 pairs" in text
    assert "12 pairs, 4 instructions, 3 models<" in (folder / "calibration.svg").read_text()
    stored = json.loads((folder / "calibration.json").read_text())
    assert stored["judge_id"] == calibration.judge_id
    assert f"each judged once by {calibration.judge_id}" in capsys.readouterr().out


def test_a_second_calibration_asks_nothing_and_gives_the_same_bytes(planned, monkeypatch):
    node, paths = planned(LIKELY)
    folder = calibration_folder("mine", paths)
    sources = [str(file) for file in FILES]

    def bytes_of():
        calibrate_files("mine", sources, node, paths)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = bytes_of()

    def refuse(*_):
        raise AssertionError("the judge was asked again")

    monkeypatch.setattr(
        "implicit_tuning.judging.judges.mean_logprob.MeanLogprobJudge.judge", refuse
    )
    assert bytes_of() == first


def test_the_oracle_needs_no_calibration(planned):
    node, paths = planned({"kind": "oracle"})
    with pytest.raises(ValueError, match=r"judges.mine is right by construction"):
        calibrate_files("mine", [str(FILES[0])], node, paths)
