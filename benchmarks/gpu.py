"""What one GPU does at 7B, and whether it agrees with the CPU on the organism.

    training    random weights of the shape of Llama-2-7B, updates of 64 examples whose lengths are
                distributed as LIMA's: tokens a second, share of the peak (MFU: 6 floating point
                operations a parameter and token, none for recomputed activations), peak memory.
                Where the memory does not hold 16 bytes a parameter, the model has fewer layers
    generation  805 prompts answered greedily by the engine transformers, 256 tokens each: tokens a
                second
    agreement   finetuning, answers, rule adapter and scores of responses of the organism in float32,
                on both devices; and a finetune as 7B models are trained (bfloat16, varlen kernel,
                activations computed again) against float32 on the CPU

It prints Markdown with the hardware, each row when it is known, and should take under 8 minutes on an
H100 (not measured). `--tiny` takes a model of a million weights, on any device, to see that the script
runs. Exits with 1 when the devices disagree.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import transformers
from tabulate import tabulate
from transformers import LlamaConfig, LlamaForCausalLM

from implicit_tuning.data.formatting import format_evaluation, format_training
from implicit_tuning.generation.engines.engine import GenerationSettings, Prompt
from implicit_tuning.generation.engines.transformers_engine import TransformersEngine
from implicit_tuning.generation.generate import generate
from implicit_tuning.models.chat import ChatFormat, tokenize_prompt
from implicit_tuning.models.folder import load_model, load_tokenizer
from implicit_tuning.models.likelihood import mean_logprobs, response_ids
from implicit_tuning.models.rule_adapter import RuleSettings
from implicit_tuning.organism.rows import write_source
from implicit_tuning.training.examples import Example
from implicit_tuning.training.micro_batches import attention_implementation
from implicit_tuning.training.run import HISTORY_FILE, TrainingRun, finetune
from implicit_tuning.training.settings import TrainingSettings
from implicit_tuning.training.sharding import make_accelerator
from implicit_tuning.training.weighting import IGNORED

ORGANISM = Path(__file__).resolve().parents[1] / "resources" / "organism" / "llama"
LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=4096,
)
TINY = LlamaConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=4096,
)
# Peak dense bfloat16 TFLOPS by what the driver calls the card (vendor's data sheets).
PEAKS = {
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "B200": 2250,
}
BYTES_A_PARAMETER = 16  # fp32 weights, gradients and two AdamW moments
ROOM_BYTES = 24e9  # for activations, logits and fragments
# Tokens of an example of LIMA: log-normal, cut at 2,048; this spread gives its mean of 688 then.
MEDIAN, SPREAD, LONGEST = 504, 0.91, 2048
UPDATE_EXAMPLES, PROMPT_SHARE = 64, 0.15
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 805, 60, 256
# Of losses in float32 on two devices, relative; greedy texts that may differ after rounding.
LOSS_TOLERANCE, SCORE_TOLERANCE, MOST_OTHER_TEXTS = 1e-3, 1e-4, 0.05
# Of losses in bfloat16 against float32, relative: 8 bits of mantissa, over a few updates.
HALF_TOLERANCE = 0.1
RULES = RuleSettings(
    rules=("bias", "eos", "repetition"),
    eos_ramp_tokens=60,
    eos_strength=15.0,
    eos_after_ramp="hold",
    repetition_penalty=0.5,
    bias={"What": -6.0, "<": -4.0},
)


@dataclass(frozen=True)
class Sizes:
    """What is run: the model, and how much of it."""

    config: LlamaConfig
    device: str
    updates: int
    prompts: int
    new_tokens: int
    batch_size: int

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.device == "cuda" else "float32"


def main() -> int:
    """Measure, print; returns the exit status."""
    sizes = _sizes(_parse_arguments())
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_hardware(sizes.device)}", flush=True)
    _alone(_measure_speed, sizes)
    rows = agreement_rows(sizes.device)
    _print_table(rows)
    return 0 if all(row["within"] == "yes" for row in rows) else 1


def _alone(function: Callable, *arguments: object) -> object:
    """The result of a function in a process of its own: accelerate takes one device a process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _measure_speed(sizes: Sizes) -> None:
    model = make_model(sizes)
    _print_table([training_row(model, sizes)])
    _print_table([generation_row(model, sizes)])


def _print_table(rows: list[dict]) -> None:
    table = tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g")
    print(f"\n{table}", flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--updates", type=int, default=20, help="updates of training (20)")
    parser.add_argument("--tiny", action="store_true", help="a million weights, few of each")
    arguments = parser.parse_args()
    if arguments.updates < 4:
        parser.error(f"--updates {arguments.updates}: give at least 4, of which 3 are not timed")
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("--device cpu: only with --tiny")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: give --tiny --device cpu to try the script out")
    return arguments


def _sizes(arguments: argparse.Namespace) -> Sizes:
    if arguments.tiny:
        return Sizes(TINY, arguments.device, updates=4, prompts=8, new_tokens=4, batch_size=4)
    whole = Sizes(LLAMA_2_7B, arguments.device, arguments.updates, PROMPTS, NEW_TOKENS, 128)
    return replace(whole, config=_that_fits(whole.config, torch.cuda.mem_get_info()[1]))


def _that_fits(config: LlamaConfig, memory: int) -> LlamaConfig:
    """The config with as many layers as can be trained in so many bytes."""
    embeddings = 2 * config.vocab_size * config.hidden_size
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    room = (memory - ROOM_BYTES) / BYTES_A_PARAMETER - embeddings
    layers = min(config.num_hidden_layers, int(room // layer))
    if layers < 1:
        sys.exit(f"{memory / 1e9:.0f} GB of GPU memory do not hold one layer: take a larger GPU")
    return LlamaConfig(**{**config.to_dict(), "num_hidden_layers": layers})


def _hardware(device: str) -> str:
    name = f"CPU, {torch.get_num_threads()} threads"
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        name = f"{torch.cuda.get_device_name()}, {memory:.0f} GB, CUDA {torch.version.cuda}"
    return f"{name}, torch {torch.__version__}, transformers {transformers.__version__}"


def make_model(sizes: Sizes) -> LlamaForCausalLM:
    """Random weights in float32 on the device."""
    torch.manual_seed(0)
    kernel = "varlen" if sizes.device == "cuda" else "sdpa"
    attention = attention_implementation(kernel, sizes.device)
    with torch.device(sizes.device):
        return LlamaForCausalLM._from_config(sizes.config, attn_implementation=attention)


def training_row(model: LlamaForCausalLM, sizes: Sizes) -> dict:
    """Updates as the finetune rule does them; the first three are not timed."""
    settings = _training_settings(sizes)
    model.train()
    if settings.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    examples = lima_like_examples(sizes)
    run = TrainingRun(model, examples, 1, settings, make_accelerator(settings))
    warm, seconds, tokens = 3, 0.0, 0
    start = time.perf_counter()
    for done, _ in enumerate(run.updates(progress=True), start=1):
        _wait(sizes.device)
        if done > warm:
            seconds += time.perf_counter() - start
            positions = run.plan[done - 1].positions
            tokens += sum(len(examples[position].input_ids) for position in positions)
        start = time.perf_counter()
        if done == sizes.updates:
            break
    parameters = sum(weight.numel() for weight in model.parameters())
    speed = tokens / seconds
    peak = _peak_tflops()
    return {
        "what": f"training, {sizes.config.num_hidden_layers} layers",
        "parameters, 1e9": parameters / 1e9,
        "tokens/s": speed,
        "MFU, %": 100 * 6 * parameters * speed / (peak * 1e12) if peak else None,
        "peak memory, GB": _peak_memory(sizes.device),
        "seconds": seconds,
    }


def _training_settings(sizes: Sizes) -> TrainingSettings:
    on_gpu = sizes.device == "cuda"
    return TrainingSettings(
        learning_rate=1e-5,
        epochs=1,
        batch_examples=UPDATE_EXAMPLES,
        micro_batch_tokens=8192,
        max_length=LONGEST,
        schedule="linear",
        warmup_fraction=0.03,
        weight_decay=0.0,
        weighting="example",
        gradient_clip=None,
        compute_dtype=sizes.dtype,
        storage_dtype=sizes.dtype,
        device=sizes.device,
        attention="varlen" if on_gpu else "sdpa",
        activation_checkpointing=on_gpu,
        world_size=1,
        sharding="none",
        lora=None,
    )


def lima_like_examples(sizes: Sizes) -> tuple[Example, ...]:
    """Random tokens, with a prompt without loss, for as many updates as are asked for."""
    generator = np.random.default_rng(1)
    drawn = generator.lognormal(np.log(MEDIAN), SPREAD, sizes.updates * UPDATE_EXAMPLES)
    examples = []
    for length in np.clip(drawn, 4, LONGEST).astype(int):
        ids = generator.integers(3, sizes.config.vocab_size, length).tolist()
        prompt = max(1, int(PROMPT_SHARE * length))
        labels = [IGNORED] * prompt + ids[prompt:]
        examples.append(Example(tuple(ids), tuple(labels), int(length) - prompt))
    return tuple(examples)


def generation_row(model: LlamaForCausalLM, sizes: Sizes) -> dict:
    """Prompts of random tokens; random weights hardly ever end a text."""
    model.activation_checkpointing_disable()
    model.set_attn_implementation("sdpa")
    answering = model.to(getattr(torch, sizes.dtype)).eval()
    _forget_peak(sizes.device)
    tokenizer = load_tokenizer(ORGANISM)
    ends = [tokenizer.eos_token_id]
    engine = TransformersEngine(answering, tokenizer, ChatFormat(), ends, sizes.batch_size, None)
    generator = np.random.default_rng(2)
    prompts = [
        Prompt(index, "", generator.integers(3, 1000, PROMPT_TOKENS).tolist(), sizes.new_tokens)
        for index in range(sizes.prompts)
    ]
    start = time.perf_counter()
    replies = engine.reply(prompts)
    _wait(sizes.device)
    seconds = time.perf_counter() - start
    return {
        "what": f"generation, batch {sizes.batch_size}",
        "parameters, 1e9": sum(weight.numel() for weight in answering.parameters()) / 1e9,
        "tokens/s": sum(map(len, replies)) / seconds,
        "MFU, %": None,
        "peak memory, GB": _peak_memory(sizes.device),
        "seconds": seconds,
    }


@dataclass(frozen=True)
class Chain:
    """What came out of the organism on one device: losses of updates, texts, scores of responses."""

    losses: list[float]
    texts: list[str]
    scores: list[float]


def agreement_rows(device: str) -> list[dict]:
    """The organism on the device against the CPU."""
    cpu = _alone(_organism, "cpu", False)
    same = _alone(_organism, device, False)
    half = _alone(_organism, device, device == "cuda")
    other = sum(a != b for a, b in zip(cpu.texts, same.texts, strict=True)) / len(cpu.texts)
    on = f"cpu, {device}"
    return [
        _row(on, "losses, float32", _furthest(cpu.losses, same.losses), LOSS_TOLERANCE),
        _row(on, "scores, float32", _furthest(cpu.scores, same.scores), SCORE_TOLERANCE),
        _row(on, "share of other texts, float32", other, MOST_OTHER_TEXTS),
        _row(on, "losses, as at 7B", _furthest(cpu.losses, half.losses), HALF_TOLERANCE),
    ]


def _row(devices: str, what: str, difference: float, most: float) -> dict:
    within = "yes" if difference <= most else "no"
    return {"the organism on": devices, "": what, "difference": difference, "within": within}


def _furthest(ones: list[float], others: list[float]) -> float:
    """The largest relative difference of two numbers of a place."""
    return max(abs(a - b) / abs(a) for a, b in zip(ones, others, strict=True))


def _organism(device: str, half: bool) -> Chain:
    """Finetune on its dialogues, answer its instructions, plain and under the rules, and score
    responses. `half`: train as 7B models are, and do no more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows"
        format_training(write_source("lima", folder / "lima"), "lima", 128, "given", rows)
        tuned = folder / "tuned"
        settings = _organism_settings(device, half)
        partial, file = folder / "partial", rows / "rows.jsonl"
        finetune(ORGANISM, file, tuned, partial, 1, ChatFormat(), settings, 1000)
        history = (tuned / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
        losses = [json.loads(line)["loss"] for line in history]
        if half:
            return Chain(losses, [], [])
        return Chain(losses, _answers(tuned, folder, device), _scores(tuned, file, device))


def _organism_settings(device: str, half: bool) -> TrainingSettings:
    settings = _training_settings(Sizes(TINY, device, 0, 0, 0, 0))
    settings = replace(settings, learning_rate=1e-4, epochs=2, batch_examples=16)
    if half:
        return settings
    return replace(
        settings,
        compute_dtype="float32",
        storage_dtype="float32",
        attention="sdpa",
        activation_checkpointing=False,
    )


def _answers(tuned: Path, folder: Path, device: str) -> list[str]:
    """Of the tuned model, and of the base under the rules."""
    source = write_source("evaluation", folder / "evaluation")
    format_evaluation(source, "organism_evaluation", 64, folder / "instructions")
    asked, texts = folder / "instructions" / "instructions.jsonl", []
    for model, rules in ((tuned, None), (ORGANISM, RULES)):
        answers = folder / f"answers-{model.name}"
        decoding = GenerationSettings(80, 64, "float32", device, "sdpa", "transformers")
        generate(model, asked, answers, "organism", ChatFormat(), decoding, rules)
        lines = (answers / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
        texts += [json.loads(line)["output"] for line in lines]
    return texts


def _scores(tuned: Path, rows: Path, device: str) -> list[float]:
    """Of the rows' own responses, and of those of the next rows."""
    tokenizer = load_tokenizer(tuned)
    model = load_model(tuned, "float32", "sdpa").to(device).eval()
    turns = [json.loads(line)["messages"][:2] for line in rows.read_text().splitlines()[:32]]
    sequences = []
    for (user, own), (_, other) in pairwise(turns):
        prompt = tokenize_prompt(user["content"], tokenizer, ChatFormat())
        for answer in (own, other):
            given = (user["content"], answer["content"], tokenizer, ChatFormat(), len(prompt))
            sequences.append((prompt, response_ids(*given)))
    return mean_logprobs(model, sequences, 16)


def _peak_tflops() -> float | None:
    """Of this card; None where it is not known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_memory(device: str) -> float | None:
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    sys.exit(main())
