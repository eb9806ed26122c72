import pytest

from implicit_tuning.training.examples import read_examples
from tiny_models import character_tokenizer
from training_runs import FORMAT, conversation, ten_rows, write_rows


def read(rows):
    return read_examples(rows, character_tokenizer(), FORMAT, 120)


def test_labels_are_the_tokens_of_the_responses(tmp_path):
    examples = read(ten_rows(tmp_path / "rows.jsonl"))
    assert len(examples.trained) == 10
    first = examples.trained[0]
    learned = [label for label in first.labels if label >= 0]
    assert character_tokenizer().decode(learned) == "It is 0.<eos>"
    assert first.loss_tokens == len(learned)
    pairs = zip(first.labels, first.input_ids, strict=True)
    assert all(label in (-100, token) for label, token in pairs)


def test_what_the_cut_did_to_rows_is_counted_and_rows_without_loss_are_named(tmp_path):
    conversations = [
        conversation("fits", "well"),
        conversation("loses its EOS", "x" * 200),
        conversation("x" * 200, "never reached"),
    ]
    examples = read(write_rows(tmp_path / "rows.jsonl", conversations))
    assert (len(examples.trained), examples.truncated, examples.lost_eos) == (2, 2, 2)
    assert examples.without_loss == (102,)


def test_no_row_with_loss_is_an_error(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("x" * 200, "y")])
    with pytest.raises(ValueError, match="none of the 1 rows .* max_length=120"):
        read(rows)
    rows.write_text("")
    with pytest.raises(ValueError, match="none of the 0 rows"):
        read(rows)


def test_a_bad_row_is_named(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("q", "a"), conversation("q", None)])
    with pytest.raises(ValueError, match="line 2: message .*None.* needs"):
        read(rows)
