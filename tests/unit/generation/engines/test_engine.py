"""The door to the engines: one model for several files, and an engine in its own keys alone."""

from dataclasses import asdict

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from generate import answer_node, open_answerer
from greedy_answers import FORMAT, RULE_SETTINGS, SETTINGS, outputs, run, write_instructions
from implicit_tuning.generation.engines import transformers_engine
from implicit_tuning.generation.engines.engine import GenerationSettings, Prompt
from implicit_tuning.generation.engines.kinds import LIBRARIES, generation_code
from implicit_tuning.generation.engines.transformers_engine import open_engine
from implicit_tuning.generation.generate import Answerer
from implicit_tuning.models.chat import ChatFormat, tokenize_prompt
from implicit_tuning.models.folder import load_tokenizer
from implicit_tuning.nodes.code import PACKAGE
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.nodes.job import Job
from imported_modules import imported_by
from tiny_models import write_base

FIRST, SECOND = ["Hi", "a\nb", "Say 1"], ["Say 1", "Line\u2028So?"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def loads(monkeypatch):
    """The folders whose model was loaded."""
    folders = []
    load_model = transformers_engine.load_model

    def counted(folder, *options):
        folders.append(folder)
        return load_model(folder, *options)

    monkeypatch.setattr(transformers_engine, "load_model", counted)
    return folders


@pytest.mark.parametrize("rules", [None, RULE_SETTINGS], ids=["plain", "rules"])
def test_a_model_loaded_once_answers_several_files_as_if_alone(base, tmp_path, loads, rules):
    with Answerer(base, FORMAT, SETTINGS, rules) as answerer:
        for name, texts in (("first", FIRST), ("second", SECOND), ("again", FIRST)):
            file = write_instructions(tmp_path / f"{name}.jsonl", texts)
            answerer.answer(file, tmp_path / name, "tiny")
    assert loads == [base]
    run(base, tmp_path / "first alone", rules=rules, texts=FIRST)
    run(base, tmp_path / "second alone", rules=rules, texts=SECOND)
    assert outputs(tmp_path / "first") == outputs(tmp_path / "first alone")
    assert outputs(tmp_path / "second") == outputs(tmp_path / "second alone")
    assert outputs(tmp_path / "again") == outputs(tmp_path / "first")


def test_jobs_that_differ_in_their_instructions_share_a_model(base, tmp_path, loads):
    def job(name, texts):
        file = write_instructions(tmp_path / f"{name}.jsonl", texts)
        sources = {"model": base, "instructions": file}
        return Job(
            settings={
                "generator": name, "chat": asdict(FORMAT), "generation": asdict(SETTINGS),
                "rules": asdict(RULE_SETTINGS),
            },
            runtime={"vllm_python": None},
            upstream={
                key: {"source": path, "digest": source_sha256(path)}
                for key, path in sources.items()
            },
            data=tmp_path / name, partial=tmp_path, spending=tmp_path,
        )  # fmt: skip

    jobs = [job("first", FIRST), job("second", SECOND)]
    with open_answerer(jobs[0]) as answerer:
        reports = [answer_node(job, answerer) for job in jobs]
    assert [report.n for report in reports] == [len(FIRST), len(SECOND)]
    assert {output["generator"] for output in outputs(tmp_path / "second")} == {"second"}
    assert loads == [base]


def test_too_large_a_batch_names_the_setting(base, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("transformers.GenerationMixin.generate", full)
    with pytest.raises(MemoryError, match="generation.batch_size is 3, .* 3 prompts of up to") as e:
        run(base, tmp_path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "outputs.jsonl").exists()


def test_an_engine_is_in_the_keys_of_its_own_answers_alone():
    modules = {engine: set(generation_code(engine).modules) for engine in LIBRARIES}
    shared = {"generate", f"{PACKAGE}.generation.generate", f"{PACKAGE}.models.rule_adapter"}
    assert shared <= modules["transformers"] & modules["vllm"]
    names = {"vllm_engine", "vllm_worker", "vllm_rules", "rule_rows"}
    vllm = {f"{PACKAGE}.generation.engines.{name}" for name in names}
    assert modules["vllm"] - modules["transformers"] == vllm
    assert modules["transformers"] - modules["vllm"] == {
        f"{PACKAGE}.generation.engines.transformers_engine"
    }


@pytest.mark.parametrize("module", ["", ".engine", ".kinds", ".vllm_worker"])
def test_planning_engines_imports_no_model_library(module, repository):
    modules = imported_by(f"{PACKAGE}.generation.engines{module}", repository / "workflow/scripts")
    assert not {"torch", "transformers", "vllm"} & modules


def test_rows_of_one_batch_each_end_where_their_own_room_does(repository):
    base = repository / "resources/organism/llama"
    tokenizer = load_tokenizer(base)
    settings = GenerationSettings(40, 3, "float32", "cpu", "sdpa")
    engine = open_engine(base, tokenizer, ChatFormat(), settings, None, {})
    ids = [
        tokenize_prompt(text, tokenizer, ChatFormat())
        for text in ("Name a color.", "Write a poem about the sea.", "Name a bird.")
    ]
    alone = [engine.reply([Prompt(i, "", row, 40)])[0] for i, row in enumerate(ids)]
    rooms = [2, 40, 1]
    prompts = [
        Prompt(i, "", row, room) for i, (row, room) in enumerate(zip(ids, rooms, strict=True))
    ]
    assert engine.reply(prompts) == [row[:room] for row, room in zip(alone, rooms, strict=True)]


def test_a_model_that_looks_positions_up_decodes_no_row_beyond_its_context(tmp_path, repository):
    config = GPT2Config(vocab_size=4096, n_positions=24, n_embd=32, n_layer=1, n_head=2)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(repository / "resources/organism/llama")
    settings = GenerationSettings(100, 4, "float32", "cpu", "sdpa")
    engine = open_engine(tmp_path, tokenizer, ChatFormat(), settings, None, {})
    prompts = [Prompt(i, "", list(range(5, 5 + n)), 24 - n) for i, n in enumerate((20, 6))]
    replies = engine.reply(prompts)
    assert [len(reply) for reply in replies] == [4, 18]
