import logging
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicit_tuning.models.chat import tokenize_prompt
from implicit_tuning.training import run as training
from implicit_tuning.training.settings import LoraSettings
from tiny_models import character_tokenizer, write_base
from training_runs import (
    FORMAT,
    SETTINGS,
    conversation,
    digests,
    history,
    run,
    ten_rows,
    write_rows,
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
    return ten_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


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


@pytest.mark.parametrize("tokens", [1, 90, 1000])
def test_micro_batches_change_nothing_but_rounding(base, rows, tmp_path, tokens):
    run(base, rows, tmp_path, name="one")
    run(base, rows, tmp_path, replace(SETTINGS, micro_batch_tokens=tokens), name="other")
    pairs = zip(history(tmp_path, "one"), history(tmp_path, "other"), strict=True)
    for expected, record in pairs:
        assert record["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_activation_checkpointing_changes_nothing(base, rows, tmp_path, monkeypatch):
    run(base, rows, tmp_path, name="plain")
    recomputed = []
    checkpointed = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint",
        lambda *args, **kwargs: recomputed.append(kwargs) or checkpointed(*args, **kwargs),
    )
    run(base, rows, tmp_path, replace(SETTINGS, activation_checkpointing=True), name="again")
    assert recomputed and all(kwargs["use_reentrant"] is False for kwargs in recomputed)
    plain, again = (weights(tmp_path / name) for name in ("plain", "again"))
    assert max((plain[name] - again[name]).abs().max() for name in plain) <= 1e-6


def test_a_base_in_half_precision_trains_in_fp32(base, rows, tmp_path):
    half = shutil.copytree(base, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(half)
    settings = replace(SETTINGS, learning_rate=1e-6)
    run(half, rows, tmp_path, settings)
    before, after = weights(half), weights(tmp_path / "tuned")
    moved = torch.cat([(after[name] != before[name].float()).flatten() for name in before])
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert moved.float().mean() > 0.8


LORA = LoraSettings(rank=4, alpha=8.0, dropout=0.0, target_modules=("q_proj", "down_proj"))


def test_lora_trains_low_rank_changes_of_the_named_layers(base, rows, tmp_path):
    report = run(base, rows, tmp_path, replace(SETTINGS, lora=LORA, epochs=20, learning_rate=1e-2))
    assert report.final_loss < history(tmp_path)[0]["loss"]
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == CHECKPOINT
    before, after = weights(base), weights(tmp_path / "tuned")
    assert before.keys() == after.keys()
    for name in before:
        change = after[name] - before[name]
        named = "q_proj" in name or "down_proj" in name
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 4 if named else (change == 0).all()


def test_lora_saves_adapters_alone_and_resumes_to_the_same_bytes(base, rows, tmp_path, monkeypatch):
    settings = replace(SETTINGS, lora=replace(LORA, target_modules="all-linear", dropout=0.1))
    run(base, rows, tmp_path / "whole", settings)
    for _ in stop_at(monkeypatch, 5):
        with pytest.raises(KeyboardInterrupt):
            run(base, rows, tmp_path, settings)
    with safe_open(tmp_path / "partial/state.safetensors", "pt") as state:
        names = state.keys()
    assert names and all("lora_" in name for name in names)
    run(base, rows, tmp_path, settings)
    assert digests(tmp_path / "tuned") == digests(tmp_path / "whole/tuned")


def test_a_lora_target_that_matches_no_layer_is_named_with_those_there_are(base, rows, tmp_path):
    lora = replace(LORA, target_modules=("q_proj", "query", "lm_head"))
    with pytest.raises(ValueError, match="'query', 'lm_head', but .* are down_proj, gate_proj, k_"):
        run(base, rows, tmp_path, replace(SETTINGS, lora=lora))


def weights(folder):
    return load_file(folder / "model.safetensors")


def killed_finetune(base, rows, folder, updates):
    """Train in this process, which kills itself after so many updates."""
    step = training.TrainingRun._step

    def step_or_die(self, number, update):
        if number > updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number, update)

    training.TrainingRun._step = step_or_die
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
    numbers, step = [], training.TrainingRun._step

    def counted(self, number, update):
        numbers.append(number)
        return step(self, number, update)

    monkeypatch.setattr(training.TrainingRun, "_step", counted)
    return numbers


def stop_at(monkeypatch, stop):
    step = training.TrainingRun._step

    def stopped(self, number, update):
        if number == stop:
            raise KeyboardInterrupt
        return step(self, number, update)

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "_step", stopped)
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
