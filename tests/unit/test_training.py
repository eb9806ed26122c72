import hashlib
import json
import logging
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import character_tokenizer, write_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicit_tuning import training
from implicit_tuning.chat import ChatFormat, tokenize_prompt
from implicit_tuning.training import TrainingSettings, finetune, plan_updates, read_examples

FORMAT = ChatFormat()
SETTINGS = TrainingSettings(
    learning_rate=1e-3,
    epochs=2,
    batch_examples=4,
    micro_batch_examples=2,
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
)
CHECKPOINT = {
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "loss_history.jsonl",
}


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


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    conversations = [conversation(f"Say {n}", f"It is {n}. " * (1 + n % 5)) for n in range(10)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", conversations)


def run(base, rows, folder, settings=SETTINGS, seed=1, save_every=2, name="tuned"):
    return finetune(
        base, rows, folder / name, folder / "partial", seed, FORMAT, settings, save_every, False
    )


def history(folder, name="tuned"):
    lines = (folder / name / "loss_history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_writes_a_whole_checkpoint_and_cleans_up(base, rows, tmp_path):
    report = run(base, rows, tmp_path)
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == CHECKPOINT
    assert not (tmp_path / "partial").exists()
    records = history(tmp_path)
    assert [record["update"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["epoch"] for record in records] == [1, 1, 1, 2, 2, 2]
    assert [record["examples"] for record in records] == [4, 4, 2, 4, 4, 2]
    assert report.examples == 10 and report.updates == 6
    assert report.tokens == sum(record["tokens"] for record in records)
    assert report.final_loss == records[-1]["loss"] < records[0]["loss"]


def test_plain_transformers_loads_the_checkpoint_with_its_format(base, rows, tmp_path):
    run(base, rows, tmp_path, replace(SETTINGS, storage_dtype="bfloat16"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    assert model.dtype == torch.bfloat16
    asked = [{"role": "user", "content": "Say 3"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert prompt == tokenize_prompt("Say 3", character_tokenizer(), FORMAT)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("family", ["llama", "olmo"])
def test_learns_to_answer_and_stop(family, tmp_path):
    base = write_base(tmp_path / "base", family)
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("Say a", "abc")] * 4)
    report = run(base, rows, tmp_path, replace(SETTINGS, epochs=60, learning_rate=3e-3))
    assert report.final_loss < 0.05
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    prompt = torch.tensor([tokenize_prompt("Say a", tokenizer, FORMAT)])
    answer = model.generate(prompt, max_new_tokens=10)[0, prompt.shape[1] :]
    assert tokenizer.decode(answer) == "abc<eos>"


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(base, rows, tmp_path):
    for name in ("one", "two"):
        run(base, rows, tmp_path, name=name)
    run(base, rows, tmp_path, seed=2, name="other")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert history(tmp_path, "one") != history(tmp_path, "other")


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_change_nothing_but_rounding(base, rows, tmp_path, micro_batch):
    run(base, rows, tmp_path, name="two")
    settings = replace(SETTINGS, micro_batch_examples=micro_batch)
    run(base, rows, tmp_path, settings, name="other")
    pairs = zip(history(tmp_path, "two"), history(tmp_path, "other"), strict=True)
    for expected, record in pairs:
        assert record["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_order_is_a_fresh_permutation_of_seed_and_epoch():
    updates = plan_updates(10, 3, SETTINGS)
    orders = [
        [i for update in updates if update.epoch == epoch for i in update.positions]
        for epoch in (1, 2)
    ]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]
    longer = plan_updates(10, 3, replace(SETTINGS, epochs=5, learning_rate=1.0))
    assert longer[: len(updates)] == updates
    assert plan_updates(10, 4, SETTINGS) != updates


def killed_finetune(base, rows, folder, updates):
    """Train in this process, which kills itself after so many updates."""
    step = training._Run._step

    def step_or_die(self, number, update):
        if number > updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number, update)

    training._Run._step = step_or_die
    torch.set_num_threads(1)
    run(base, rows, folder)


@pytest.mark.parametrize("updates", [1, 4, 5])
def test_killed_run_resumes_to_the_same_bytes(base, rows, tmp_path, updates, monkeypatch, caplog):
    run(base, rows, tmp_path / "whole")
    process = multiprocessing.get_context("spawn").Process(
        target=killed_finetune, args=(base, rows, tmp_path / "broken", updates)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    saved = (tmp_path / "broken" / "partial" / "state.safetensors").exists()
    assert saved == (updates >= 2)

    done_again = count_steps(monkeypatch)
    run(base, rows, tmp_path / "broken")
    assert done_again == list(range(1 + 2 * (updates // 2), 7))
    assert (f"resuming after update {2 * (updates // 2)}," in caplog.text) == saved
    assert digests(tmp_path / "broken" / "tuned") == digests(tmp_path / "whole" / "tuned")


def count_steps(monkeypatch):
    numbers, step = [], training._Run._step

    def counted(self, number, update):
        numbers.append(number)
        return step(self, number, update)

    monkeypatch.setattr(training._Run, "_step", counted)
    return numbers


def stop_at(monkeypatch, stop):
    step = training._Run._step

    def stopped(self, number, update):
        if number == stop:
            raise KeyboardInterrupt
        return step(self, number, update)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "_step", stopped)
        yield


@pytest.mark.parametrize("other", ["settings", "seed", "rows", "base"])
def test_state_of_another_run_is_not_used(base, rows, tmp_path, other, monkeypatch, caplog):
    for _ in stop_at(monkeypatch, 5):
        with pytest.raises(KeyboardInterrupt):
            run(base, rows, tmp_path)
    settings = replace(SETTINGS, learning_rate=2e-3) if other == "settings" else SETTINGS
    seed = 2 if other == "seed" else 1
    if other == "rows":
        rows = write_rows(tmp_path / "rows.jsonl", [conversation("q", "abc")] * 10)
    if other == "base":
        base = write_base(tmp_path / "base", context=128)
    steps = count_steps(monkeypatch)
    with caplog.at_level(logging.WARNING):
        run(base, rows, tmp_path, settings, seed)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert "belongs to another run" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: saved[:-9],
        lambda saved: saved[:-9] + b"\xff" + saved[-8:],
        lambda saved: saved.replace(b"epoch", b"Epoch", 1),
    ],
    ids=["truncated", "a tensor changed", "the history changed"],
)
def test_a_damaged_state_is_not_used(base, rows, tmp_path, damage, monkeypatch, caplog):
    run(base, rows, tmp_path / "whole")
    for _ in stop_at(monkeypatch, 5):
        with pytest.raises(KeyboardInterrupt):
            run(base, rows, tmp_path)
    state = tmp_path / "partial/state.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    run(base, rows, tmp_path)
    assert "state.safetensors is damaged" in caplog.text
    assert digests(tmp_path / "tuned") == digests(tmp_path / "whole/tuned")


def test_cut_rows_are_counted_and_named(base, tmp_path):
    conversations = [
        conversation("fits\u2028in", "well"),
        conversation("loses its EOS", "x" * 200),
        conversation("x" * 200, "never reached"),
    ]
    rows = write_rows(tmp_path / "rows.jsonl", conversations)
    report = run(base, rows, tmp_path)
    assert report.examples == 2
    assert report.truncated == 2 and report.lost_eos == 2
    assert report.without_loss == (102,)


def test_no_row_with_loss_is_an_error(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("x" * 200, "y")])
    with pytest.raises(ValueError, match="none of the 1 rows .* max_length=120"):
        run(base, rows, tmp_path)
    rows.write_text("")
    with pytest.raises(ValueError, match="none of the 0 rows"):
        run(base, rows, tmp_path)


def test_bad_row_is_named(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("q", "a"), conversation("q", None)])
    with pytest.raises(ValueError, match="line 2: message .*None.* needs"):
        run(base, rows, tmp_path)


@pytest.mark.parametrize(
    ("missing", "what"), [("tokenizer.json", "tokenizer"), ("model.safetensors", "weights")]
)
def test_incomplete_base_is_named(rows, tmp_path, missing, what):
    base = write_base(tmp_path / "base")
    (base / missing).unlink()
    with pytest.raises(ValueError, match=f"no {what} \\({missing}") as error:
        run(base, rows, tmp_path)
    assert str(base) in str(error.value)


def test_loss_that_is_not_finite_stops_the_run(base, rows, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(ValueError, match="loss of update 2 is (nan|inf) at learning rate"):
        run(base, rows, tmp_path, settings)
    assert not (tmp_path / "tuned").exists()


def test_weights_that_are_not_finite_after_the_last_update_are_not_saved(base, rows, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e38, epochs=1, batch_examples=1000, weight_decay=9)
    with pytest.raises(ValueError, match="last update left .* not finite, at peak learning rate"):
        run(base, rows, tmp_path, replace(settings, warmup_fraction=0.0))
    assert not (tmp_path / "tuned/model.safetensors").exists()


def test_schedules_and_gradient_clip(base, rows, tmp_path):
    run(base, rows, tmp_path, replace(SETTINGS, warmup_fraction=0.3), name="linear")
    rates = [record["learning_rate"] for record in history(tmp_path, "linear")]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])
    run(base, rows, tmp_path, replace(SETTINGS, schedule="cosine"), name="cosine")
    rates = [record["learning_rate"] for record in history(tmp_path, "cosine")]
    assert rates[1] == 1e-3 and rates[2:] == sorted(rates[2:], reverse=True)
    run(base, rows, tmp_path, replace(SETTINGS, gradient_clip=1e-9), name="clipped")
    run(base, rows, tmp_path, name="free")
    start, clipped, free = (
        load_file(path / "model.safetensors")["lm_head.weight"]
        for path in (base, tmp_path / "clipped", tmp_path / "free")
    )
    assert (clipped - start).norm() < 0.5 * (free - start).norm()


def test_token_weighting_and_eager_attention_are_used(base, rows, tmp_path):
    run(base, rows, tmp_path, name="example")
    run(base, rows, tmp_path, replace(SETTINGS, weighting="token"), name="token")
    run(base, rows, tmp_path, replace(SETTINGS, attention="eager"), name="eager")
    losses = {name: history(tmp_path, name)[0]["loss"] for name in ("example", "token", "eager")}
    assert losses["example"] == pytest.approx(losses["eager"], rel=1e-5)
    assert abs(losses["example"] - losses["token"]) > 1e-3


def bfloat16_finetune(base, rows, folder):
    run(base, rows, folder, replace(SETTINGS, compute_dtype="bfloat16", learning_rate=1e-6))


def test_bfloat16_compute_keeps_fp32_master_weights(base, rows, tmp_path):
    # In a process of its own: accelerate's precision is fixed for a process.
    process = multiprocessing.get_context("spawn").Process(
        target=bfloat16_finetune, args=(base, rows, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    moved = torch.cat([(after[name] != before[name]).flatten() for name in before])
    assert moved.float().mean() > 0.8, "steps of 1e-6 would be lost in bf16 weights"


def test_read_examples_pairs_labels_with_responses(rows):
    tokenizer = character_tokenizer()
    first = read_examples(Path(rows), tokenizer, FORMAT, 120).trained[0]
    learned = [label for label in first.labels if label >= 0]
    assert tokenizer.decode(learned) == "It is 0.<eos>"
    assert first.loss_tokens == len(learned)
