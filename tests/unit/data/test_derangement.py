"""The shuffled control gives every instruction another one's answer."""

import json
import random

import pytest

from implicit_tuning.data.derangement import other_places
from implicit_tuning.data.reading import read_rows
from shuffle import shuffle_outputs


def texts_with_repetitions(seed):
    rng = random.Random(seed)
    return [f"answer {rng.randrange(12)}" for _ in range(60)]


@pytest.mark.parametrize("seed", range(5))
def test_every_position_gets_another_text_and_every_text_is_used_once(seed):
    texts = texts_with_repetitions(seed)
    givers = other_places(texts, seed)
    assert sorted(givers) == list(range(len(texts)))
    assert all(texts[giver] != text for giver, text in zip(givers, texts, strict=True))


def test_the_seed_decides_the_order():
    texts = texts_with_repetitions(0)
    assert other_places(texts, 1) == other_places(texts, 1) != other_places(texts, 2)


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "a"], ["a", "a", "b"]])
def test_texts_without_variety_are_refused(texts):
    with pytest.raises(ValueError, match="more variety is needed"):
        other_places(texts, 1)


def test_rows_keep_their_instruction_and_take_the_new_name(tmp_path):
    rows = [
        {"index": i, "instruction": f"q{i}", "output": f"a{i}", "generator": "instruction",
         "n_tokens": i, "finish": "eos"}
        for i in range(4)
    ]  # fmt: skip
    source = tmp_path / "outputs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "new").mkdir()
    shuffle_outputs(source, tmp_path / "new", "shuffled", seed=1)
    lines = (tmp_path / "new/outputs.jsonl").read_text().splitlines()
    moved = [json.loads(line) for line in lines]
    assert [row["instruction"] for row in moved] == ["q0", "q1", "q2", "q3"]
    assert {row["generator"] for row in moved} == {"shuffled"}
    assert all(row["output"] == f"a{row['n_tokens']}" != f"a{row['index']}" for row in moved)


def test_line_separators_inside_an_output_are_text(tmp_path):
    row = {"index": 0, "instruction": "q", "generator": "g", "n_tokens": 1, "finish": "eos"}
    texts = ["one\u2028two", "three\u0085four"]
    lines = [json.dumps({**row, "output": text}, ensure_ascii=False) + "\n" for text in texts]
    source = tmp_path / "outputs.jsonl"
    source.write_text("".join(lines), encoding="utf-8")
    (tmp_path / "new").mkdir()
    shuffle_outputs(source, tmp_path / "new", "shuffled", seed=1)
    moved = [row["output"] for row in read_rows(tmp_path / "new/outputs.jsonl")]
    assert moved == texts[::-1]
