"""The vLLM engine over a stand-in for vLLM; the last test runs vLLM itself, where there is one."""

import importlib.util
import os
import sys
from dataclasses import asdict, replace
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
import yaml

import vllm_stand_in
from greedy_answers import FORMAT, RULE_SETTINGS, SETTINGS, outputs, run, write_instructions
from implicit_tuning.generation.engines.engine import VLLM_PYTHON
from implicit_tuning.generation.engines.vllm_engine import VllmEngine
from implicit_tuning.generation.engines.vllm_worker import VLLM_VERSION
from implicit_tuning.generation.generate import Answerer, generate
from implicit_tuning.models.chat import tokenize_prompt
from implicit_tuning.models.rule_adapter import RULES, RuleAdapter, RuleSettings
from implicit_tuning.nodes.code import PACKAGE, Code
from tiny_models import character_tokenizer, write_base

SUBSETS = [subset for size in range(4) for subset in combinations(RULES, size)]
TOKENIZER = character_tokenizer()
NEW_TOKENS = 30
# What the model comes to write of itself, by the number of the request: user tags, in whole or part.
WRITTEN = {
    0: "ab<|user|>ab a<|user|>b",
    1: "<|user|>",
    3: "<|user|!<|user",
    5: "<|assistant|>",
}
# In the middle and at the end of a tag.
PREEMPTED = [(0, 6), (0, 10), (1, 3), (1, 8), (5, 13)]
PROMPTS = [
    "Hi",
    "A much longer instruction, which takes three chunks before it is read, or so",
    "",
    "The tag <|user|> inside",
    "a\nb",
    "aaaa bbbb !!!!",
    "0123456789 (2 + 2 = 5)?",
]


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """vLLM's interface, of vLLM itself if it can be imported here."""
    if importlib.util.find_spec("vllm") is None:
        monkeypatch.syspath_prepend(vllm_stand_in.install(tmp_path / "site", VLLM_VERSION))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]
    sys.modules.pop("implicit_tuning.generation.engines.vllm_rules", None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def python(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("environment")
    site = vllm_stand_in.install(folder / "site", VLLM_VERSION)
    return vllm_stand_in.interpreter(folder, site, repository / "tests/support")


# --- the rules --------------------------------------------------------------------------------


def random_logits(number, text_length, written):
    """Logits of one step; `written` is its response so far, so that it can be led to write more."""
    generator = torch.Generator().manual_seed(1000 * number + text_length)
    logits = torch.randn(len(TOKENIZER), generator=generator)
    script = TOKENIZER(WRITTEN.get(number, ""))["input_ids"]
    if 0 <= written < len(script):
        logits[script[written]] += 100
    return logits


def alone(prompt, number, rules):
    """Adapted logits of each step, by a RuleAdapter with one row."""
    adapter = RuleAdapter(TOKENIZER, **asdict(rules), chat_format=FORMAT)
    text, steps = list(prompt), []
    while len(text) < len(prompt) + NEW_TOKENS and text[-1] != TOKENIZER.eos_token_id:
        logits = random_logits(number, len(text), len(text) - len(prompt))
        steps.append(adapter(torch.tensor([text]), logits[None])[0])
        text.append(int(steps[-1].argmax()))
    return steps, text[len(prompt) :]


@pytest.mark.parametrize("after", ["hold", "drop"])
@pytest.mark.parametrize("subset", SUBSETS, ids="-".join)
def test_rules_are_those_of_the_adapter_for_requests_that_come_and_go(
    vllm, tmp_path, subset, after
):
    from implicit_tuning.generation.engines.vllm_rules import RuleProcessor

    TOKENIZER.save_pretrained(tmp_path)
    rules = replace(RULE_SETTINGS, rules=subset, eos_after_ramp=after, eos_strength=9.0)
    asked = {"tokenizer": str(tmp_path), "rules": asdict(rules), "chat": asdict(FORMAT)}
    prompts = [tokenize_prompt(text, TOKENIZER, FORMAT) for text in PROMPTS]
    runner = vllm_stand_in.Runner(
        lambda state: [RuleProcessor(SimpleNamespace(additional_config=asked), state)],
        lambda request: random_logits(
            request.number, request.computed, request.computed - request.prompt
        ),
        slots=3,
        context=256,
        vocabulary=len(TOKENIZER),
        preempt_at=PREEMPTED,
    )
    params = vllm_stand_in.SamplingParams(
        max_tokens=NEW_TOKENS, stop_token_ids=[TOKENIZER.eos_token_id], extra_args={"rules": True}
    )
    replies = runner.run(prompts, [params] * len(prompts))

    for number, prompt in enumerate(prompts):
        steps, reply = alone(prompt, number, rules)
        assert replies[number] == reply
        assert torch.equal(torch.stack(runner.adapted[number]), torch.stack(steps))
        assert TOKENIZER.decode(reply).startswith(WRITTEN.get(number, ""))


def test_request_without_user_tag_is_refused(vllm, tmp_path):
    from implicit_tuning.generation.engines.vllm_rules import RuleProcessor

    TOKENIZER.save_pretrained(tmp_path)
    asked = {
        "tokenizer": str(tmp_path), "rules": asdict(RULE_SETTINGS), "chat": asdict(FORMAT)
    }  # fmt: skip
    runner = vllm_stand_in.Runner(
        lambda state: [RuleProcessor(SimpleNamespace(additional_config=asked), state)],
        logits=None,
        slots=1,
        context=256,
        vocabulary=len(TOKENIZER),
    )
    with pytest.raises(ValueError, match="no user tag"):
        runner.run([[5, 6, 7]], [vllm_stand_in.SamplingParams(extra_args={"rules": True})])


# --- the engine and its worker ----------------------------------------------------------------

ON_VLLM = replace(SETTINGS, engine="vllm", device="cuda")


@pytest.mark.parametrize("rules", [None, RULE_SETTINGS], ids=["plain", "rules"])
def test_greedy_answers_are_the_reference_engines(base, tmp_path, python, capfd, rules):
    expected = run(base, tmp_path / "reference", SETTINGS, rules)
    runtime = {"vllm_python": str(python)}
    files = [write_instructions(tmp_path / "all.jsonl")]
    files.append(write_instructions(tmp_path / "few.jsonl", ["a\nb", "Say 1"]))
    with Answerer(base, FORMAT, ON_VLLM, rules, runtime) as answerer:
        worker = answerer.engine.process.pid
        reports = [answerer.answer(file, tmp_path / file.stem, "tiny") for file in files]
        assert answerer.engine.process.pid == worker
    assert outputs(tmp_path / "all") == outputs(tmp_path / "reference")
    shown = {output["instruction"]: output["output"] for output in outputs(tmp_path / "reference")}
    assert [output["output"] for output in outputs(tmp_path / "few")] == [
        shown["a\nb"], shown["Say 1"]
    ]  # fmt: skip
    assert reports[0].engine_versions == {"vllm": VLLM_VERSION, "torch": torch.__version__}
    assert replace(reports[0], engine_versions={}) == expected
    assert "Processed prompts" in capfd.readouterr().err
    assert answerer.engine.process.poll() is not None


def refusal(base, tmp_path, settings=ON_VLLM, python=None):
    with pytest.raises(ValueError) as error:
        generate(
            base, write_instructions(tmp_path / "instructions.jsonl"), tmp_path / "out", "tiny",
            FORMAT, settings, None, {"vllm_python": python},
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_run_is_refused_in_one_line(base, tmp_path, python, monkeypatch, repository):
    monkeypatch.delenv(VLLM_PYTHON, raising=False)
    assert "set device to 'cuda'" in refusal(base, tmp_path, replace(ON_VLLM, device="cpu"))
    assert "set runtime.vllm_python, or IMPLICIT_TUNING_VLLM_PYTHON" in refusal(base, tmp_path)
    missing = refusal(base, tmp_path, python="/nowhere/python")
    assert "'/nowhere/python', which cannot be run (No such file or directory)" in missing
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = refusal(base, tmp_path, python=str(vllm_stand_in.interpreter(empty)))
    assert "has no vllm: make the environment with 'conda env create -f environment-vllm" in bare
    old = tmp_path / "old"
    site = vllm_stand_in.install(old / "site", "0.1.0")
    wrong = refusal(base, tmp_path, python=str(vllm_stand_in.interpreter(old, site)))
    assert f"has vllm 0.1.0 instead of {VLLM_VERSION}" in wrong
    monkeypatch.setenv(vllm_stand_in.FAILURE, "no gpu")
    monkeypatch.setenv(VLLM_PYTHON, str(python))
    assert "no CUDA GPU here: set generation.engine" in refusal(base, tmp_path)


def test_worker_that_dies_is_named_with_its_last_lines(base, tmp_path, python, monkeypatch):
    monkeypatch.setenv(vllm_stand_in.FAILURE, "dies")
    monkeypatch.setenv(VLLM_PYTHON, str(python))
    (tmp_path / "json.py").write_text("raise ImportError('a file of the folder it runs in')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="status 3; it printed\n") as error:
        run(base, tmp_path, ON_VLLM)
    lines = str(error.value).splitlines()
    assert lines[-1] == "CUDA error: an illegal memory access was encountered"
    assert not (tmp_path / "outputs.jsonl").exists()


def test_worker_that_died_between_two_files_is_named(base, tmp_path, python, monkeypatch):
    monkeypatch.setenv(vllm_stand_in.FAILURE, "hangs")
    runtime = {"vllm_python": str(python)}
    file = write_instructions(tmp_path / "all.jsonl")
    with Answerer(base, FORMAT, ON_VLLM, None, runtime) as answerer:
        answerer.engine.process.kill()
        answerer.engine.process.wait()
        with pytest.raises(RuntimeError, match="worker ended with status -9; it printed\n"):
            answerer.answer(file, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()


def test_worker_ends_with_a_job_that_is_killed(base, python, monkeypatch):
    monkeypatch.setenv(vllm_stand_in.FAILURE, "hangs")
    job = {"model": "", "dtype": "", "batch_size": 1, "context": 9, "ends": [0], "rules": None}
    engine = VllmEngine(str(python), job)
    prompts = f"{engine.folder.name}/prompts.jsonl"
    with open(prompts, "w") as file:
        file.write('{"input_ids": [1], "room": 1}\n')
    engine.process.stdin.write(f"{prompts}\n")
    engine.process.stdin.close()  # as the end of a process does
    assert engine.process.wait(timeout=20) == 0
    engine.close()


def test_worker_needs_no_more_of_the_package_than_the_rules_do():
    """Its environment has other libraries than ours, and only what vLLM asks for."""
    names = ("vllm_worker", "vllm_rules")
    modules = Code(tuple(f"{PACKAGE}.generation.engines.{name}" for name in names)).modules
    assert set(modules) == {
        f"{PACKAGE}.{name}"
        for name in (
            "models.chat", "models.rule_adapter", "generation.engines.rule_rows",
            "generation.engines.vllm_rules", "generation.engines.vllm_worker",
        )
    }  # fmt: skip


def test_environment_has_the_version_that_the_worker_asks_for(repository):
    environment = yaml.safe_load((repository / "environment-vllm.yml").read_text())
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [f"vllm=={VLLM_VERSION}"]


# --- vLLM itself ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(VLLM_PYTHON not in os.environ, reason=f"{VLLM_PYTHON} is not set")
@pytest.mark.parametrize("rules", [None, RuleSettings(eos_ramp_tokens=60)], ids=["plain", "rules"])
def test_vllm_writes_what_the_reference_engine_does(repository, tmp_path, rules):
    base = repository / "resources/organism/llama"
    texts = ["Name a river.", "Write a poem, please.", "What is 2 + 2?", "", "How are you?"]
    settings = replace(ON_VLLM, max_new_tokens=60, batch_size=4)
    reference = replace(settings, engine="transformers", device="cpu")
    run(base, tmp_path / "reference", reference, rules, texts)
    run(base, tmp_path / "vllm", settings, rules, texts)
    assert outputs(tmp_path / "vllm") == outputs(tmp_path / "reference")
