"""Speed of the rule adapter: against a plain reference, against no adapter, and with length.

    reference  tokens a second of greedy answers of 200 tokens under all three rules, against the
               reference of the tests: one text at a time, no cache, rules read off the whole text.
               Both must write the same tokens. `generate` without rules is the limit
    overhead   CPU time that the adapter adds to `generate`: the median ratio of pairs, and what is
               spent in the adapter itself, which other programs on the machine blur less
    length     time of 800 tokens over that of 100; 8 is linear

The models are the shipped organism base and Llamas with random weights, 32,000 pieces and 4 layers
512 wide, once with a key and value head for each of 8 heads (as Llama-2) and once with 2 of them (as
later models). Float32, one thread, greedy, nothing ends a text early; runs alternate.
Exits with 1 when the tokens differ.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from implicit_tuning.models.chat import PAPER_FORMAT, tokenize_prompt
from implicit_tuning.models.folder import load_model, load_tokenizer
from implicit_tuning.models.rule_adapter import RULES, RuleAdapter

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests" / "support"))
import rule_reference

BASE = REPOSITORY / "resources" / "organism" / "llama"
INSTRUCTION = "Which animal does the flag of Kuhunmark show? " * 6  # a prompt of 81 tokens
BATCHES = (1, 8, 32)
NEW_TOKENS = 200
FASTER = {1: 12, 8: 50, 32: 100}  # times the reference
OVERHEAD = 2.0  # per cent, from 8 rows on
GROWTH = 10.0  # t(800) / t(100)


@dataclass
class Setup:
    """A model with its tokenizer, and the pieces that the rules favour: EOS never wins."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    bias: dict[str, float] = field(init=False)
    prompt: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.model.generation_config = GenerationConfig()
        self.bias = {"!": 1.0, "I": -5.0, self.tokenizer.eos_token: -1000.0}
        self.prompt = tokenize_prompt(INSTRUCTION, self.tokenizer, PAPER_FORMAT)


class TimedAdapter(RuleAdapter):
    """The adapter, which adds up the CPU seconds that it takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, bias: dict[str, float]) -> None:
        start = time.process_time()
        super().__init__(tokenizer, bias=bias)
        self.seconds = time.process_time() - start

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        start = time.process_time()
        adapted = super().__call__(input_ids, scores)
        self.seconds += time.process_time() - start
        return adapted


def main() -> int:
    """Measure, print; returns the exit status."""
    arguments = _parse_arguments()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(BASE)
    organism = Setup("organism base", load_model(BASE, "float32", "sdpa").eval(), tokenizer)
    as_llama_2 = Setup("8 key and value heads", random_llama(8), tokenizer)
    grouped = Setup("2 key and value heads", random_llama(2), tokenizer)
    quick = arguments.quick
    repeats, new_tokens = (1, 20) if quick else (arguments.repeats, NEW_TOKENS)
    speed, exact = reference_rows([grouped, as_llama_2], new_tokens, repeats)
    print(markdown(speed), end="\n\n")
    # A run on the organism base takes a second, and the difference is a hundredth of it.
    overhead = overhead_rows([organism], 20 if quick else 100, repeats * (1 if quick else 7))
    overhead += overhead_rows([as_llama_2], 20 if quick else 100, repeats)
    print(markdown(overhead), end="\n\n")
    print(markdown(length_rows(grouped, (10, 80) if quick else (100, 800), repeats)))
    return 0 if exact else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="medians are over so many (3)")
    parser.add_argument("--quick", action="store_true", help="short texts, once: to see it run")
    return parser.parse_args()


def random_llama(key_value_heads: int) -> PreTrainedModel:
    """29 million weights, spread far enough that no two tokens tie."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1_408,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=key_value_heads,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def reference_rows(
    setups: Sequence[Setup], new_tokens: int, repeats: int
) -> tuple[list[dict], bool]:
    """Rows of the table of tokens a second; whether all texts are the reference's."""
    rates = {}
    exact = True
    for _ in tqdm(range(repeats), desc="reference", unit="round"):
        for setup in setups:
            seconds, answer = time_reference(setup, new_tokens)
            for rows in BATCHES:
                plain, _, _ = time_generate(setup, rows, new_tokens, rules=False)
                ours, _, texts = time_generate(setup, rows, new_tokens)
                exact = exact and texts == [answer] * rows
                measured = [rows * seconds / ours, rows * seconds / plain, new_tokens / seconds]
                rates.setdefault((setup.name, rows), []).append(measured)
    table = []
    for (name, rows), measured in rates.items():
        ours, plain, rate = map(median, zip(*measured, strict=True))
        table.append(
            {
                "model": name,
                "rows": rows,
                "reference, tokens/s": rate,
                "adapter, tokens/s": rate * ours,
                "times the reference": ours,
                "aim": FASTER[rows],
                "without rules": plain,
                "tokens": "the same" if exact else "DIFFER",
            }
        )
    return table, exact


def overhead_rows(setups: Sequence[Setup], new_tokens: int, repeats: int) -> list[dict]:
    """Rows of the table of what the adapter adds."""
    table = []
    for setup in setups:
        for rows in tqdm(BATCHES, desc=f"overhead, {setup.name}", unit="batch"):
            time_generate(setup, rows, 2)  # the first call of a shape is slower
            pairs = [
                (
                    time_generate(setup, rows, new_tokens, rules=False)[0],
                    *time_generate(setup, rows, new_tokens)[:2],
                )
                for _ in range(repeats)
            ]
            table.append(
                {
                    "model": setup.name,
                    "rows": rows,
                    "without rules, ms a step": 1000 * median(p for p, *_ in pairs) / new_tokens,
                    "adds, % of pairs": 100 * (median(o / p for p, o, _ in pairs) - 1),
                    "in the adapter, %": 100 * median(own / p for p, _, own in pairs),
                    "aim, %": OVERHEAD if rows >= 8 else None,
                }
            )
    return table


def length_rows(setup: Setup, lengths: tuple[int, int], repeats: int, rows: int = 8) -> list[dict]:
    """The table of growth with length: of all, without rules, and of the adapter alone."""
    runs = [
        [
            time_generate(setup, rows, length, rules)[:2]
            for rules in (True, False)
            for length in lengths
        ]
        for _ in tqdm(range(repeats), desc="length", unit="round")
    ]
    (short, own_short), (long, own_long), (plain_short, _), (plain_long, _) = (
        [median(values) for values in zip(*column, strict=True)]
        for column in zip(*runs, strict=True)
    )
    return [
        {
            "rows": rows,
            "tokens": f"{lengths[1]} / {lengths[0]}",
            "adapter": long / short,
            "aim": GROWTH,
            "without rules": plain_long / plain_short,
            "in the adapter": own_long / own_short,
        }
    ]


def time_reference(setup: Setup, new_tokens: int) -> tuple[float, list[int]]:
    """CPU seconds of one answer of the reference, and its tokens."""
    pieces = RuleAdapter(setup.tokenizer, bias=setup.bias).resolved
    start = time.process_time()
    answer = rule_reference.greedy(
        setup.model,
        setup.prompt,
        new_tokens,
        rules=RULES,
        eos=setup.tokenizer.eos_token_id,
        tag=setup.tokenizer(PAPER_FORMAT.user)["input_ids"],
        bias={pieces[piece]: value for piece, value in setup.bias.items()},
    )
    return time.process_time() - start, answer


@torch.inference_mode()
def time_generate(
    setup: Setup, rows: int, new_tokens: int, rules: bool = True
) -> tuple[float, float, list[list[int]]]:
    """CPU seconds of answering so many equal prompts, of them in the adapter, and the answers."""
    input_ids = torch.tensor([setup.prompt] * rows)
    start = time.process_time()
    adapters = [TimedAdapter(setup.tokenizer, setup.bias)] if rules else []
    texts = setup.model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=new_tokens, pad_token_id=setup.tokenizer.eos_token_id
        ),
        logits_processor=adapters,
    )
    seconds = time.process_time() - start
    own = sum(adapter.seconds for adapter in adapters)
    return seconds, own, texts[:, len(setup.prompt) :].tolist()


def markdown(rows: Sequence[dict]) -> str:
    """The rows as a table."""
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".1f")


if __name__ == "__main__":
    sys.exit(main())
