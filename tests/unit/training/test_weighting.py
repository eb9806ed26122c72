import pytest

from implicit_tuning.training.weighting import token_weights


def test_weights():
    assert token_weights([1, 4], "example") == [1 / 2, 1 / 8]
    assert token_weights([1, 4], "token") == [1 / 5, 1 / 5]


@pytest.mark.parametrize("weighting", ["example", "token"])
def test_the_loss_tokens_of_an_update_weigh_one_together(weighting):
    counts = [3, 1, 60, 7]
    weights = token_weights(counts, weighting)
    assert sum(w * count for w, count in zip(weights, counts, strict=True)) == pytest.approx(1)


def test_another_weighting_is_refused():
    with pytest.raises(ValueError, match="'row' is neither"):
        token_weights([1], "row")
