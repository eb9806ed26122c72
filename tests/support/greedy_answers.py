"""Greedy answers of a tiny model: instructions, settings, and a run of the generation."""

import json

from implicit_tuning.generation.generate import GenerationSettings, generate
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleSettings

FORMAT = ChatFormat()
SETTINGS = GenerationSettings(
    max_new_tokens=20, batch_size=3, dtype="float32", device="cpu", attention="sdpa"
)
RULE_SETTINGS = RuleSettings(eos_ramp_tokens=12, bias={"!": 1.0, "I": -5.0, "\u2581We": -3.0})
INSTRUCTIONS = [
    "Hi",
    "A much longer instruction, in words",
    "",
    "<|user|>",
    "a\nb",
    "Say 1",
    "Line\u2028So?",
]


def write_instructions(path, texts=INSTRUCTIONS):
    items = [
        {"index": index, "instruction": text, "family": None, "truth": None}
        for index, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    return path


def outputs(folder):
    return [json.loads(line) for line in (folder / "outputs.jsonl").open()]


def run(base, folder, settings=SETTINGS, rules=None, texts=INSTRUCTIONS):
    folder.mkdir(exist_ok=True)
    instructions = write_instructions(folder / "instructions.jsonl", texts)
    return generate(base, instructions, folder, "tiny", FORMAT, settings, rules)
