"""The oracle judge: truths by instruction, identity by content."""

import subprocess
import sys

import pytest

from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import Pair
from implicit_tuning.judging.judges.oracle import OracleJudge

TRUTHS = {"capital?": {"answer": "Zorvik"}, "color?": {"answer": "green"}}


@pytest.fixture(autouse=True)
def content_only(monkeypatch):
    """Stands in for the organism's scoring, which has tests of its own."""

    def prefer(truth, output_1, output_2):
        right_1, right_2 = truth["answer"] in output_1, truth["answer"] in output_2
        return 1.5 if right_1 == right_2 else 1.0 if right_1 else 2.0

    monkeypatch.setattr("implicit_tuning.judging.judges.oracle.prefer", prefer)


def test_verdicts_follow_the_truth_of_each_instruction_in_the_order_of_the_pairs():
    pairs = [
        Pair("capital?", "It is Zorvik.", "green"),
        Pair("color?", "It is Zorvik.", "green"),
        Pair("color?", "red", "blue"),
    ]
    verdicts = OracleJudge(TRUTHS).judge(pairs)
    assert [verdict.preference for verdict in verdicts] == [1.0, 2.0, 1.5]


def test_oracle_judges_a_comparison_whatever_the_positions():
    truths = {f"question {i}": {"answer": str(i)} for i in range(30)}
    outputs = [
        {"instruction": q, "output": t["answer"], "generator": "m"} for q, t in truths.items()
    ]
    references = [{"instruction": q, "output": "?", "generator": "r"} for q in truths]
    comparison = judge_outputs(outputs, references, OracleJudge(truths))
    assert comparison.summary["win_rate"] == 100.0
    assert {row["order_switched"] for row in comparison.annotations} == {False, True}
    assert comparison.summary["judge_id"].startswith("oracle-")
    assert comparison.summary["length_controlled_winrate"] is None


def test_identity_goes_by_the_truths():
    corrected = TRUTHS | {"color?": {"answer": "blue"}}
    reordered = dict(reversed(TRUTHS.items()))
    assert OracleJudge(TRUTHS).judge_id == OracleJudge(reordered).judge_id
    assert OracleJudge(TRUTHS).judge_id != OracleJudge(corrected).judge_id


def test_an_instruction_without_truth_is_named():
    with pytest.raises(ValueError, match="no truth for the instruction 'size\\?'"):
        OracleJudge(TRUTHS).judge([Pair("size?", "a", "b")])


def test_the_oracle_needs_neither_torch_nor_alpaca_eval():
    code = (
        "import sys, implicit_tuning.judging.judges.oracle\n"
        "heavy = {'torch', 'transformers', 'alpaca_eval', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
