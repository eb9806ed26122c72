"""What the tests of fine-tuning share: rows, settings and runs on tiny bases."""

import hashlib
import json

from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.training.run import finetune
from implicit_tuning.training.settings import TrainingSettings

FORMAT = ChatFormat()
SETTINGS = TrainingSettings(
    learning_rate=1e-3,
    epochs=2,
    batch_examples=4,
    micro_batch_tokens=150,
    max_length=120,
    schedule="linear",
    warmup_fraction=0.1,
    weight_decay=0.0,
    weighting="example",
    gradient_clip=None,
    compute_dtype="float32",
    storage_dtype="float32",
    device="cpu",
    attention="sdpa",
    activation_checkpointing=False,
    world_size=1,
    sharding="none",
    lora=None,
)


def conversation(instruction, response):
    return [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]


def write_rows(path, conversations):
    lines = [
        json.dumps({"messages": messages, "source_row": 100 + number}, ensure_ascii=False) + "\n"
        for number, messages in enumerate(conversations)
    ]
    path.write_text("".join(lines))
    return path


def ten_rows(path):
    return write_rows(
        path, [conversation(f"Say {n}", f"It is {n}. " * (1 + n % 5)) for n in range(10)]
    )


def run(base, rows, folder, settings=SETTINGS, seed=1, save_every=2, name="tuned"):
    return finetune(
        base, rows, folder / name, folder / "partial", seed, FORMAT, settings, save_every, False
    )


def history(folder, name="tuned"):
    lines = (folder / name / "loss_history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
