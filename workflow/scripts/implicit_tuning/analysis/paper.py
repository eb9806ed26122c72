"""The paper's win rates, rankings and chosen epochs, to stand beside ours.

Source: Hewitt, Liu, Liang, Manning, "Instruction Following without Instruction Tuning",
arXiv 2409.14254 (v1). AlpacaEval 2 length-controlled win rate (%) against the LIMA
instruction-tuned model of the same base and seed, judged by GPT-4-Turbo: mean and standard
deviation over five seeds. Where our judge, bases or evaluation set are others, it is the order of
the adaptations that can be compared, not the numbers.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PaperWinRate:
    """Mean and standard deviation over five seeds, in percent."""

    mean: float
    std: float


# The adaptation that all of the paper's win rates are against.
REFERENCE = "instruction"
SEEDS = 5
JUDGE = "gpt-4-1106-preview"
# As people write the names by which a config asks for the paper's bases.
BASE_NAMES: Mapping[str, str] = {"llama-2-7b": "Llama-2-7B", "olmo-7b": "OLMo-7B"}

# Other tags: `<|A|>`, `<|B|>`, against instruction tuning with those tags. Rephrased: 99 responses
# that restated the instruction.
WIN_RATES: Mapping[str, Mapping[str, PaperWinRate]] = {
    "llama-2-7b": {
        "base": PaperWinRate(2.4, 0.14),
        "response": PaperWinRate(43.3, 1.1),
        "response-other-tags": PaperWinRate(41.8, 0.84),
        "mbpp": PaperWinRate(16.9, 0.70),
        "gsm8k": PaperWinRate(23.7, 0.74),
        "poetry": PaperWinRate(22.9, 0.97),
        "recipes": PaperWinRate(14.6, 0.81),
        "chess": PaperWinRate(2.1, 0.36),
        "rules": PaperWinRate(24.4, 0.40),
        "rules-no-eos": PaperWinRate(10.4, 0.30),
        "rules-no-repetition": PaperWinRate(14.3, 0.58),
        "rules-no-bias": PaperWinRate(16.3, 0.25),
    },
    "olmo-7b": {
        "base": PaperWinRate(4.7, 0.57),
        "response": PaperWinRate(43.7, 1.7),
        "response-rephrased": PaperWinRate(43.3, 5.3),
        "mbpp": PaperWinRate(10.4, 1.0),
        "gsm8k": PaperWinRate(30.3, 0.6),
        "poetry": PaperWinRate(21.9, 0.48),
        "recipes": PaperWinRate(21.5, 0.86),
        "chess": PaperWinRate(6.3, 1.1),
    },
}

# Response ranking: percentages of 5,000 comparisons (1,000 pairs of Stanford Alpaca). Texts, for the
# paper prints them without interval or deviation.
RANKED_RIGHT: Mapping[str, Mapping[str, str]] = {
    "llama-2-7b": {"base": "80.4", "instruction": "77.4"},
    "olmo-7b": {"base": "74.5", "instruction": "74.3"},
}

# Chosen on the validation set from 5, 7, 10, 15, 20 at sweep seed 42.
CHOSEN_EPOCHS: Mapping[str, Mapping[str, int]] = {
    "llama-2-7b": {
        "instruction": 15,
        "response": 5,
        "gsm8k": 7,
        "mbpp": 15,
        "chess": 15,
        "poetry": 15,
        "recipes": 20,
        "instruction-other-tags": 7,
        "response-other-tags": 7,
    },
    "olmo-7b": {
        "instruction": 15,
        "response": 7,
        "gsm8k": 7,
        "mbpp": 7,
        "chess": 20,
        "poetry": 5,
        "recipes": 20,
        "instruction-rephrased": 15,
        "response-rephrased": 7,
    },
}

# Rows of the paper's tables, top to bottom, with the rule ablations under the rules and our control
# last.
ORDER = (
    "base",
    "instruction",
    "response",
    "response-other-tags",
    "response-rephrased",
    "mbpp",
    "gsm8k",
    "poetry",
    "recipes",
    "chess",
    "rules",
    "rules-no-eos",
    "rules-no-repetition",
    "rules-no-bias",
)


def in_order(adaptations: Iterable[str], controls: Collection[str] = ()) -> list[str]:
    """Adaptations as the paper lists them, then all others by name, then controls.

    The order of keys in a config so changes no table.
    """
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        adaptations, key=lambda name: (name in controls, places.get(name, len(ORDER)), name)
    )
