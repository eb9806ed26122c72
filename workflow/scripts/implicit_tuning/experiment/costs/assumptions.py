"""What a plan assumes where nothing was measured: each a number that is printed with the plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Value and its meaning; the value is formatted into the text.
ASSUMPTIONS: Mapping[str, tuple[float, str]] = {
    "rows": (1000, "{:,.0f} rows in a data set whose entry says no number"),
    "tokens_per_row": (300, "{:g} tokens a row of a data set without tokens_per_row"),
    "characters_per_token": (4, "{:g} characters a token where the tokenizer is not here yet"),
    "longest_answer": (4, "{:g} times the mean for the longest answer of a batch"),
    "rewritten": (0.1, "{:.0%} of the responses restate their instruction and are rewritten"),
    # A job of the organism took so long on a 2-core machine, with its share of Snakemake's time.
    "start_s": (1.7, "{:g} s to start a job without a model, Snakemake's share included"),
    "model_start_s": (5.0, "{:g} s to start a job with a model"),
    "gpu_start_s": (20.0, "{:g} s to start a job on a GPU"),
    "vllm_start_s": (90.0, "{:g} s to start vLLM"),
    "core_gflops": (50, "{:g} GFLOPS of float32 a CPU core"),
    "host_gb_per_s": (20, "{:g} GB/s from main memory"),
    "gpu_share": (0.4, "{:.0%} of a GPU's TFLOPS"),
    "bandwidth_share": (0.6, "{:.0%} of a GPU's memory bandwidth"),
    "layer_ms": (0.6, "{:g} ms a layer for each step of decoding with transformers"),
    "disk_gb_per_s": (1, "{:g} GB/s to read, hash or write weights and saves"),
    "network_mb_per_s": (50, "{:g} MB/s of downloads"),
    "call_s": (2, "{:g} s a call of an endpoint"),
}


@dataclass
class Assumed:
    """Hands out assumptions and remembers which were asked for."""

    asked: set[str] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)

    def __call__(self, name: str) -> float:
        self.asked.add(name)
        return ASSUMPTIONS[name][0]

    def note(self, text: str) -> None:
        """Remember something else that was assumed."""
        self.notes[text] = None

    def lines(self) -> list[str]:
        """What was assumed, in words, each once."""
        asked = [
            text.format(value) for name, (value, text) in ASSUMPTIONS.items() if name in self.asked
        ]
        return [*self.notes, *asked]
