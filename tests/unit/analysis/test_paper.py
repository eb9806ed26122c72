"""The paper's numbers are those of the paper."""

from implicit_tuning.analysis.paper import (
    BASE_NAMES,
    CHOSEN_EPOCHS,
    RANKED_RIGHT,
    WIN_RATES,
    in_order,
)


def rates(base):
    return {name: (rate.mean, rate.std) for name, rate in WIN_RATES[base].items()}


def test_win_rates_of_llama():
    assert rates("llama-2-7b") == {
        "base": (2.4, 0.14), "response": (43.3, 1.1), "response-other-tags": (41.8, 0.84),
        "mbpp": (16.9, 0.70), "gsm8k": (23.7, 0.74), "poetry": (22.9, 0.97),
        "recipes": (14.6, 0.81), "chess": (2.1, 0.36), "rules": (24.4, 0.40),
        "rules-no-eos": (10.4, 0.30), "rules-no-repetition": (14.3, 0.58),
        "rules-no-bias": (16.3, 0.25),
    }  # fmt: skip


def test_win_rates_of_olmo():
    assert rates("olmo-7b") == {
        "base": (4.7, 0.57), "response": (43.7, 1.7), "response-rephrased": (43.3, 5.3),
        "mbpp": (10.4, 1.0), "gsm8k": (30.3, 0.6), "poetry": (21.9, 0.48), "recipes": (21.5, 0.86),
        "chess": (6.3, 1.1),
    }  # fmt: skip


def test_chosen_epochs():
    assert CHOSEN_EPOCHS == {
        "llama-2-7b": {
            "instruction": 15, "response": 5, "gsm8k": 7, "mbpp": 15, "chess": 15, "poetry": 15,
            "recipes": 20, "instruction-other-tags": 7, "response-other-tags": 7,
        },
        "olmo-7b": {
            "instruction": 15, "response": 7, "gsm8k": 7, "mbpp": 7, "chess": 20, "poetry": 5,
            "recipes": 20, "instruction-rephrased": 15, "response-rephrased": 7,
        },
    }  # fmt: skip


def test_bases_have_one_name_everywhere():
    assert set(BASE_NAMES) == set(WIN_RATES) == set(CHOSEN_EPOCHS)


def test_order_is_the_paper_s_then_by_name_then_controls():
    names = ["zebra", "shuffled", "chess", "ape", "base", "response"]
    ordered = ["base", "response", "chess", "ape", "zebra", "shuffled"]
    assert in_order(names, ["shuffled"]) == in_order(names[::-1], ["shuffled"]) == ordered


def test_rankings():
    assert RANKED_RIGHT["llama-2-7b"] == {"base": "80.4", "instruction": "77.4"}
    assert RANKED_RIGHT["olmo-7b"] == {"base": "74.5", "instruction": "74.3"}
    assert set(RANKED_RIGHT) == set(WIN_RATES)
