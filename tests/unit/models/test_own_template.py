"""A checkpoint that is asked by its own chat template: prompts, answers, responses, refusals."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import vllm_stand_in
from greedy_answers import INSTRUCTIONS, SETTINGS, outputs, write_instructions
from implicit_tuning.analysis.ranking import RankingSettings, rank
from implicit_tuning.generation.engines.engine import ending_tokens
from implicit_tuning.generation.engines.vllm_worker import VLLM_VERSION
from implicit_tuning.generation.generate import generate
from implicit_tuning.models.chat import (
    ChatFormat,
    require_prompts,
    saved_chat_template,
    tokenize_prompt,
    tokenize_response,
)
from implicit_tuning.models.likelihood import mean_logprobs, response_ids
from tiny_models import EOS, character_tokenizer, random_model

OWN = ChatFormat(own_template=True)
START, END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{{ bos_token or '' }}{% for message in messages %}" + START + "{{ message.role }}\n"
    "{{ message.content }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)  # fmt: skip
THINKING = CHATML.replace(START + "assistant\n{% endif", START + "assistant\n<think>\n{% endif")
REFUSAL = "{{ raise_exception('Only a system\nturn may begin') }}"


def tokenizer_with(template=CHATML, special=True):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([START, END], special_tokens=special)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def chat_model(tmp_path):
    """A model that ends a turn, and now and then a text, with another token than its EOS."""
    tokenizer = tokenizer_with()
    model = random_model(len(tokenizer))
    ends = [tokenizer.convert_tokens_to_ids(end) for end in (END, EOS, "q", "J")]
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.inference_mode()
def plain_answer(folder, instruction):
    """Token ids of what transformers alone makes of an instruction."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": instruction}], add_generation_prompt=True, return_tensors="pt"
    )
    written = model.generate(**asked, max_new_tokens=SETTINGS.max_new_tokens, do_sample=False)
    return written[0, asked["input_ids"].shape[1] :].tolist()


def test_answers_are_those_of_plain_generate_over_the_template(chat_model, tmp_path):
    instructions = write_instructions(tmp_path / "instructions.jsonl")
    report = generate(chat_model, instructions, tmp_path, "tiny", OWN, SETTINGS, None)
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    ends = ending_tokens(chat_model, tokenizer, OWN)
    expected = [plain_answer(chat_model, text) for text in INSTRUCTIONS]
    ended = [ids[-1] in ends for ids in expected]
    written = outputs(tmp_path)
    assert [o["n_tokens"] for o in written] == [len(ids) for ids in expected]
    assert [o["output"] for o in written] == [
        tokenizer.decode(ids[:-1] if end else ids, skip_special_tokens=True)
        for ids, end in zip(expected, ended, strict=True)
    ]
    assert [o["finish"] == "eos" for o in written] == ended
    assert report.n_eos == sum(ended)
    last = {ids[-1] for ids, end in zip(expected, ended, strict=True) if end}
    assert last - {tokenizer.eos_token_id}, "some answer must end with another token than EOS"


def test_vllm_ends_answers_where_the_reference_engine_does(chat_model, tmp_path, repository):
    site = vllm_stand_in.install(tmp_path / "site", VLLM_VERSION)
    python = vllm_stand_in.interpreter(tmp_path, site, repository / "tests/support")
    instructions = write_instructions(tmp_path / "instructions.jsonl")
    for engine, device in (("transformers", "cpu"), ("vllm", "cuda")):
        settings = replace(SETTINGS, engine=engine, device=device)
        runtime = {"vllm_python": str(python)}
        generate(chat_model, instructions, tmp_path / engine, "tiny", OWN, settings, None, runtime)
    assert outputs(tmp_path / "vllm") == outputs(tmp_path / "transformers")


def test_by_our_tags_the_same_model_ends_with_eos_alone(chat_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    assert ending_tokens(chat_model, tokenizer, ChatFormat()) == (tokenizer.eos_token_id,)
    assert len(ending_tokens(chat_model, tokenizer, OWN)) == 4
    (chat_model / "generation_config.json").unlink()
    file = chat_model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": 7}))
    assert ending_tokens(chat_model, tokenizer, OWN) == (tokenizer.eos_token_id, 7)


@pytest.mark.parametrize("instruction", ["Hi", " two\nlines ", "", END])
def test_prompts_are_what_the_library_renders(instruction):
    tokenizer = tokenizer_with()
    asked = [{"role": "user", "content": instruction}]
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert tokenize_prompt(instruction, tokenizer, OWN) == rendered
    assert saved_chat_template(tokenizer, OWN) == CHATML


def test_of_several_templates_the_default_is_taken():
    tokenizer = tokenizer_with({"default": CHATML, "tool_use": "tools"})
    assert saved_chat_template(tokenizer, OWN) == CHATML
    tokenizer.chat_template = {"tool_use": "tools"}
    with pytest.raises(ValueError, match="no chat template of its own"):
        saved_chat_template(tokenizer, OWN)


def test_a_template_that_tells_the_date_tells_always_the_same():
    head = "{% if strftime_now is defined %}\n{% set day = strftime_now('%A, %d %b %Y') %}\n{% endif %}"
    tokenizer = tokenizer_with(head + "\n\n{{ day }}: " + CHATML)
    prompt = tokenizer.decode(tokenize_prompt("Hi", tokenizer, OWN))
    assert prompt == f"\nFriday, 26 Jul 2024: {START}user\nHi{END}\n{START}assistant\n"


# --- responses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("response", ["An oak.", " a\nb \n", "e", "|"])
def test_a_response_stands_between_prompt_and_ending_of_the_template(response):
    tokenizer = tokenizer_with()
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": response.strip()}]
    whole = tokenizer.apply_chat_template(turns)["input_ids"]
    prompt = tokenize_prompt("Hi", tokenizer, OWN)
    ids = response_ids("Hi", response, tokenizer, OWN, len(prompt))
    assert tokenizer.decode(ids) == response.strip()
    assert prompt + ids == whole[: len(prompt) + len(ids)]
    assert tokenizer.decode(whole[len(prompt) + len(ids) :]) == f"{END}\n"


def test_a_prompt_that_opens_a_block_of_reasoning_stays_before_the_response():
    tokenizer = tokenizer_with(THINKING)
    assert tokenizer.decode(tokenize_prompt("Hi", tokenizer, OWN)).endswith("<think>\n")
    assert tokenizer.decode(tokenize_response("Hi", "oak", tokenizer)) == "oak"


@pytest.mark.parametrize("between", ["", " ", "<think>\n\n</think>\n\n"])
def test_of_what_stands_before_the_answer_only_a_space_counts(between):
    tokenizer = tokenizer_with(
        "{% for m in messages %}[{{ m.role }}]"
        "{% if m.role == 'assistant' %}" + between + "{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )  # fmt: skip
    ids = tokenize_response("Hi", "oak", tokenizer)
    assert tokenizer.decode(ids) == between * (between == " ") + "oak"


def test_a_response_that_merges_with_its_ending_is_refused():
    tokenizer = character_tokenizer(merges=(("k", "!"),))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    with pytest.raises(ValueError, match="lets the response 'oak' merge with"):
        tokenize_response("Hi", "oak", tokenizer)


EXCHANGES = [("Name a tree.", "An oak."), ("Say no.", "no"), ("Count.", "1, 2, 3")]
RANKING = RankingSettings(1, 120, 4, "float32", "cpu", "sdpa")


def write_rows(folder):
    rows = [
        {
            "messages": [
                {"role": "user", "content": instruction},
                {"role": "assistant", "content": response},
            ],
            "source_row": number,
        }
        for number, (instruction, response) in enumerate(EXCHANGES)
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_ranking_scores_responses_behind_the_models_own_prompts(chat_model, tmp_path):
    rank(chat_model, write_rows(tmp_path), tmp_path, OWN, RANKING)
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    model = AutoModelForCausalLM.from_pretrained(chat_model)
    prompts = [
        tokenizer(f"{START}user\n{text}{END}\n{START}assistant\n")["input_ids"]
        for text, _ in EXCHANGES
    ]
    responses = [tokenizer(response)["input_ids"] for _, response in EXCHANGES]
    expected = mean_logprobs(model, list(zip(prompts, responses, strict=True)), 1)
    scores = [json.loads(line)["real"] for line in (tmp_path / "scores.jsonl").open()]
    assert scores == pytest.approx(expected, abs=1e-4)


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template of its own: take 'own_template' out"),
        (REFUSAL, "fails on turns of user: Only a system turn may begin; correct it, or take"),
        ("{{ messages[1].content }}", "fails on turns of user: "),
        ("{{ 'a' + 1 }}", "fails on turns of user: "),
        ("{% for", "fails on turns of user: "),
        ("Hello", "leaves out what the user says"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(template, message, chat_model, tmp_path):
    tokenizer = tokenizer_with(template)
    with pytest.raises(ValueError, match=message) as error:
        require_prompts(tokenizer, OWN)
    assert "\n" not in str(error.value)
    tokenizer.save_pretrained(chat_model)
    if template is None:
        (chat_model / "chat_template.jinja").unlink(missing_ok=True)
    instructions = write_instructions(tmp_path / "instructions.jsonl")
    with pytest.raises(ValueError, match=message):
        generate(chat_model, instructions, tmp_path, "tiny", OWN, SETTINGS, None)
    assert not (tmp_path / "outputs.jsonl").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(chat_model, tmp_path):
    random_model(len(character_tokenizer())).save_pretrained(chat_model)
    instructions = write_instructions(tmp_path / "instructions.jsonl")
    with pytest.raises(ValueError, match="has a token 100, and the model knows 99 only"):
        generate(chat_model, instructions, tmp_path, "tiny", OWN, SETTINGS, None)
    with pytest.raises(ValueError, match="has a token 100, and the model knows 99 only"):
        rank(chat_model, write_rows(tmp_path), tmp_path, OWN, RANKING)
    generate(chat_model, instructions, tmp_path, "tiny", ChatFormat(), SETTINGS, None)


def test_a_template_without_the_answer_ranks_nothing():
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="leaves out what the assistant says"):
        tokenize_response("Hi", "oak", tokenizer_with(template))


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = character_tokenizer(eos=False)
    tokenizer.chat_template = CHATML
    with pytest.raises(ValueError, match="has no EOS token"):
        require_prompts(tokenizer, OWN)
