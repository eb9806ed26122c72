"""Training losses: first and last epoch, and the history behind them."""

import json

import pytest

from implicit_tuning.reporting.tables import loss
from implicit_tuning.reporting.tables.layout import write_table

ADAPTATIONS = ["response", "chess"]


def history_file(folder, name, losses):
    """A loss history of two epochs, half of the losses each."""
    half = len(losses) // 2
    rows = [
        {"epoch": 1 + (number >= half), "update": number + 1, "loss": value, "tokens": 9}
        for number, value in enumerate(losses)
    ]
    file = folder / name / "loss_history.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: file}


def inputs(folder):
    return {
        **history_file(folder, "b/chess/1", [4.0, 2.0, 1.0, 1.0]),
        **history_file(folder, "b/response/2", [3.0, 2.0, 1.5, 0.5]),
        **history_file(folder, "b/response/1", [3.0, 1.0, 0.123456, 0.5]),
    }


def test_losses_of_first_and_last_epoch_with_their_intervals(tmp_path):
    frame = loss.build(inputs(tmp_path), "mine", ADAPTATIONS).frame
    assert list(frame.columns) == loss.TABLE_COLUMNS
    assert list(frame["adaptation"]) == ["response", "chess"]
    response = frame.iloc[0]
    assert (response["epochs"], response["updates"], response["n_seeds"]) == (2, 4, 2)
    assert response["first_epoch_loss"] == pytest.approx((2.5 + 2.0) / 2)
    assert response["first_epoch_loss_std"] == pytest.approx(0.5 / 2**0.5)
    # Student's t over two seeds, whose 97.5 % quantile is 12.706.
    reach = 12.706 * 0.5 / 2**0.5 / 2**0.5
    ends = [response["first_epoch_loss_low"], response["first_epoch_loss_high"]]
    assert ends == pytest.approx([2.25 - reach, 2.25 + reach], abs=0.001)


def test_one_seed_has_no_interval_and_so_no_number(tmp_path):
    table = loss.build(inputs(tmp_path), "mine", ADAPTATIONS)
    chess = table.frame.iloc[1]
    assert chess["n_seeds"] == 1 and chess.filter(like="epoch_loss").isna().all()
    assert "One seed has no interval, and its row no number." in table.caption
    several = {name: file for name, file in inputs(tmp_path / "s").items() if "response" in name}
    assert "One seed" not in loss.build(several, "mine", ADAPTATIONS).caption


def test_every_update_stands_beside_the_table(tmp_path):
    write_table(loss.build(inputs(tmp_path), "mine", ADAPTATIONS), tmp_path, "loss")
    lines = (tmp_path / "loss-history.csv").read_text().splitlines()
    assert lines[0] == "base,adaptation,seed,epoch,update,loss"
    assert lines[3] == "b,response,1,2,3,0.12346"
    assert len(lines) == 1 + 3 * 4
    assert (tmp_path / "loss.md").read_text().startswith("**mine.** Training loss in nats")


def test_an_unlisted_adaptation_and_an_empty_history_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"loss histories of \['chess'\]"):
        loss.build(inputs(tmp_path / "unlisted"), "", ["response"])
    with pytest.raises(ValueError, match="b/chess/1 did not train"):
        loss.build(history_file(tmp_path, "b/chess/1", []), "", ADAPTATIONS)
