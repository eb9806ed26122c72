"""The library: what a program outside the workflow gets from `import implicit_tuning`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import LlamaTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

import implicit_tuning
from implicit_tuning import (
    ChatFormat,
    Pair,
    RuleAdapter,
    Verdict,
    fingerprint,
    format_chat,
    mask,
    rank_responses,
)
from implicit_tuning.models.chat import tokenize_prompt
from implicit_tuning.nodes import code
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS
from module_memory import forget_modules
from tiny_models import BOS, EOS, character_tokenizer, random_model

HEAVY = {"torch", "transformers", "pandas", "numpy", "alpaca_eval"}
INSTRUCTION = "Name a hill."
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": INSTRUCTION},
    {"role": "assistant", "content": " Ben Nevis. "},
    {"role": "user", "content": "Another?"},
    {"role": "assistant", "content": "Snowdon."},
]


# --- the door -----------------------------------------------------------------------------------


def test_every_name_is_what_its_module_has_and_no_module_hides_it():
    assert set(implicit_tuning.HOMES) == set(implicit_tuning.__all__)
    for name in implicit_tuning.__all__:
        thing = getattr(implicit_tuning, name)
        assert thing.__module__ == f"{PACKAGE}.{implicit_tuning.HOMES[name]}"
        assert thing.__doc__
    assert set(implicit_tuning.__all__) <= set(dir(implicit_tuning))
    with pytest.raises(AttributeError, match="'implicit_tuning' has no attribute 'maskk'"):
        _ = implicit_tuning.maskk


@pytest.mark.parametrize(
    ("use", "loaded"),
    [
        ("import implicit_tuning; dir(implicit_tuning)", set()),
        ("from implicit_tuning import ChatFormat, format_chat, mask, fingerprint", set()),
        ("from implicit_tuning import Judge, Pair, Verdict, OracleJudge", set()),
        ("from implicit_tuning import InvalidOutputs, JudgingFailed", set()),
        ("from implicit_tuning import RuleAdapter", {"torch", "transformers", "numpy"}),
    ],
    ids=["package", "without a model", "judges", "errors", "with a model"],
)
def test_names_load_only_what_they_need(use, loaded):
    run = [sys.executable, "-c", f"{use}; import sys; print(*sys.modules)"]
    environment = {"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert HEAVY & set(done.stdout.split()) == loaded


# --- chat ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [True, False])
def test_text_gives_the_ids_of_training_and_generation(bos):
    tokenizer = character_tokenizer(bos=bos)
    prompt = tokenizer(format_chat(INSTRUCTION, tokenizer))["input_ids"]
    assert prompt == tokenize_prompt(INSTRUCTION, tokenizer, ChatFormat())
    whole = tokenizer(format_chat(TURNS, tokenizer))["input_ids"]
    assert whole == list(mask(TURNS, tokenizer).input_ids)
    assert whole[: len(prompt)] != prompt  # these turns begin with another one


def test_a_conversation_awaits_an_answer_unless_it_ends_with_one():
    tokenizer = character_tokenizer()
    assert format_chat(TURNS, tokenizer).endswith("<|assistant|>\nSnowdon.<eos>")
    assert format_chat(TURNS[:2], tokenizer).endswith("Name a hill.\n<|assistant|>\n")
    tags = ChatFormat(user="<u>", assistant="<a>", system="<s>")
    assert format_chat("Go.", tokenizer, tags) == "<u>\nGo.\n<a>\n"


def test_the_mask_has_each_response_with_its_end():
    tokenizer = character_tokenizer(bos=True)
    found = mask(TURNS, tokenizer)
    kept = [token for token, counts in zip(found.input_ids, found.loss_mask, strict=True) if counts]
    assert tokenizer.decode(kept) == "Ben Nevis.<eos>Snowdon.<eos>"
    assert (found.truncated, found.lost_eos) == (False, False)
    cut = mask(TURNS, tokenizer, max_length=40)
    assert (len(cut.input_ids), cut.truncated, cut.lost_eos) == (40, True, True)


@pytest.mark.parametrize("use", [format_chat, mask])
@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"role": "human", "content": "Go."}], "needs a 'role' out of user"),
        (TURNS[2:], "cannot start with the assistant"),
        ([], "at least one message"),
        (["a", "b"], r"the conversation is .*'a', 'b'.*: give a list of messages"),
        (TURNS[1], "the conversation is .*'role': 'user'.*: give a list of messages"),
    ],
)
def test_what_is_no_conversation_is_refused(use, turns, message):
    with pytest.raises(ValueError, match=message):
        use(turns, character_tokenizer())


def test_a_text_has_no_mask():
    with pytest.raises(ValueError, match="the conversation is 'abc': give a list of messages"):
        mask("abc", character_tokenizer())


@pytest.mark.parametrize("use", [format_chat, mask])
def test_the_name_of_a_format_is_no_format(use):
    with pytest.raises(TypeError, match="chat_format is 'chatml': give a ChatFormat"):
        use(TURNS, character_tokenizer(), "chatml")


@pytest.mark.parametrize(
    ("turns", "length", "message"),
    [(TURNS, -1, "max_length is -1"), (TURNS, 0, "max_length is 0"), (TURNS[:2], 9, "add a resp")],
)
def test_a_mask_that_could_train_nothing_is_refused(turns, length, message):
    with pytest.raises(ValueError, match=message):
        mask(turns, character_tokenizer(), max_length=length)


def tokenizer_that_adds(before="", behind=""):
    tokenizer = character_tokenizer(bos=True)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (BOS, EOS)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {behind}".strip(), special_tokens=ids
    )
    return tokenizer


@pytest.mark.parametrize("before", ["", BOS])
def test_a_tokenizer_that_ends_every_text_is_refused_until_it_is_set_right(before):
    tokenizer = tokenizer_that_adds(before, EOS)
    expected = tokenize_prompt(INSTRUCTION, tokenizer, ChatFormat())
    fix = f"tokenizer.add_bos_token = {bool(before)} and tokenizer.add_eos_token = False"
    with pytest.raises(ValueError, match=f"puts its EOS behind every text.*: set {fix}$"):
        format_chat(INSTRUCTION, tokenizer)
    tokenizer.add_bos_token, tokenizer.add_eos_token = bool(before), False
    assert tokenizer(format_chat(INSTRUCTION, tokenizer))["input_ids"] == expected


def test_an_own_template_without_the_bos_that_is_added_is_refused_until_it_is_set_right():
    tokenizer = tokenizer_that_adds(BOS)
    own = ChatFormat(own_template=True)
    tokenizer.chat_template = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    expected = tokenize_prompt(INSTRUCTION, tokenizer, own)
    with pytest.raises(ValueError, match="chat template has none: set tokenizer.add_bos_token = F"):
        format_chat(INSTRUCTION, tokenizer, own)
    tokenizer.add_bos_token = False
    assert tokenizer(format_chat(INSTRUCTION, tokenizer, own))["input_ids"] == expected
    tokenizer.add_bos_token = True
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with_bos = tokenizer(format_chat(INSTRUCTION, tokenizer, own))["input_ids"]
    assert with_bos == tokenize_prompt(INSTRUCTION, tokenizer, own) == [1, *expected]


def test_a_bos_in_the_text_gives_the_ids_of_finetuning_where_the_first_piece_has_a_space():
    pieces = ["<unk>", "<s>", "</s>", "\u2581", "\n", *map(chr, range(33, 127))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True)
    text = format_chat(INSTRUCTION, tokenizer)
    expected = tokenize_prompt(INSTRUCTION, tokenizer, ChatFormat())
    assert tokenizer(text)["input_ids"] != expected
    exact = tokenizer(tokenizer.bos_token + text, add_special_tokens=False)["input_ids"]
    assert exact == expected


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(ValueError, match="has no EOS token: set 'eos_token'"):
        format_chat("Go.", character_tokenizer(eos=False))


# --- rules --------------------------------------------------------------------------------------


def test_the_rules_work_in_a_plain_call_of_generate():
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    prompt = tokenizer(format_chat(INSTRUCTION, tokenizer), return_tensors="pt")
    certain = RuleAdapter(tokenizer, rules=["eos"], eos_ramp_tokens=3, eos_strength=1e4)
    answer = model.generate(
        **prompt, max_new_tokens=20, do_sample=False, logits_processor=[certain]
    )
    assert answer.shape[1] <= prompt["input_ids"].shape[1] + 2
    assert answer[0, -1] == tokenizer.eos_token_id


# --- ranking ------------------------------------------------------------------------------------

FAMILIES = {"llama": {}, "olmo": {}, "gpt2": {"n_positions": 256}, "mamba": {"state_size": 4}}
RESPONSES = ["Ben Nevis.", "A red hen.", " Ben Nevis.\n", "x", "It is a long way up. " * 3]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.3,
        **FAMILIES[request.param],
    }
    no_other = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    vocabulary = len(character_tokenizer())
    config = CONFIG_MAPPING[request.param](vocab_size=vocabulary, **sizes, **no_other)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def score_by_hand(model, tokenizer, response):
    """One text at a time, from the text alone."""
    prompt = format_chat(INSTRUCTION, tokenizer)
    ids = tokenizer(prompt + response.strip(), return_tensors="pt")["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    logprobs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, ids[0, start:, None]).mean().item()


def assert_alike(ranking, expected):
    """One ranking, computed in products of other shapes or in another mode."""
    assert ranking.scores == pytest.approx(expected.scores, abs=1e-5)
    assert ranking.ranks == expected.ranks


@pytest.mark.parametrize("batch_size", [1, 8])
def test_scores_are_those_of_a_plain_loop_under_any_family(model, batch_size):
    tokenizer = character_tokenizer(bos=True)
    ranking = rank_responses(model, tokenizer, INSTRUCTION, RESPONSES, batch_size=batch_size)
    expected = [score_by_hand(model, tokenizer, response) for response in RESPONSES]
    assert ranking.scores == pytest.approx(expected, abs=1e-5)
    best_first = sorted(range(len(RESPONSES)), key=lambda place: -ranking.scores[place])
    assert ranking.ranks[best_first[0]] == 1
    assert ranking.ranks[0] == ranking.ranks[2]  # equal but for white space
    assert sorted(ranking.ranks) in (
        [1, 1, 3, 4, 5],
        [1, 2, 2, 4, 5],
        [1, 2, 3, 3, 5],
        [1, 2, 3, 4, 4],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_responses_of_the_same_tokens_share_score_and_rank(model, dtype):
    tokenizer = character_tokenizer(bos=True)
    likely, other = RESPONSES[0], RESPONSES[4]
    if rank_responses(model, tokenizer, INSTRUCTION, [likely, other]).ranks != (1, 2):
        likely, other = other, likely
    responses = [f" {likely}\n", *[likely] * 8, other]
    copy = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    copy.load_state_dict(model.state_dict())
    ranking = rank_responses(copy, tokenizer, INSTRUCTION, responses)
    assert ranking.ranks == (1,) * 9 + (10,)
    assert len(set(ranking.scores)) == 2


def test_a_model_that_always_returns_all_logits_is_scored_alike(monkeypatch):
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    expected = rank_responses(model, tokenizer, INSTRUCTION, RESPONSES)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **asked: forward(**asked | {"logits_to_keep": 0}))
    assert_alike(rank_responses(model, tokenizer, INSTRUCTION, RESPONSES), expected)


def test_ranking_leaves_a_model_in_training_in_training():
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    expected = rank_responses(model, tokenizer, INSTRUCTION, RESPONSES)
    model.config.attention_dropout = 0.5
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    model.train()
    assert_alike(rank_responses(model, tokenizer, INSTRUCTION, RESPONSES), expected)
    assert model.training


@pytest.mark.parametrize(
    ("responses", "error", "message"),
    [
        (["a", " \n"], ValueError, r"response 1, ' \\n', has no token"),
        (["a", "b" * 300], ValueError, r"response 1 makes a text of 3\d\d tokens, \d+ of them"),
        ("a text", TypeError, "'a text': give a list"),
    ],
    ids=["empty", "too long", "one text"],
)
def test_responses_that_cannot_be_ranked_are_refused(responses, error, message):
    tokenizer = character_tokenizer()
    with pytest.raises(error, match=message):
        rank_responses(random_model(len(tokenizer)), tokenizer, INSTRUCTION, responses)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0: it must be at least 1"),
        ({"chat_format": "chatml"}, TypeError, "chat_format is 'chatml': give a ChatFormat"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_the_ranking(values, error, message):
    tokenizer = character_tokenizer()
    with pytest.raises(error, match=message):
        rank_responses(random_model(len(tokenizer)), tokenizer, INSTRUCTION, ["a"], **values)


def test_a_tokenizer_of_another_model_is_refused():
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    tokenizer.add_tokens(["Snowdon"])
    message = f"has a token {len(tokenizer) - 1}, and the model knows {len(tokenizer) - 1} only"
    with pytest.raises(ValueError, match=message):
        rank_responses(model, tokenizer, INSTRUCTION, ["A hill.", "Snowdon."])
    with pytest.raises(ValueError, match=message):
        rank_responses(model, tokenizer, "What is Snowdon?", ["A hill."])
    assert rank_responses(model, tokenizer, INSTRUCTION, ["A hill."]).ranks == (1,)


def test_nothing_to_rank_is_an_empty_ranking():
    tokenizer = character_tokenizer()
    ranking = rank_responses(random_model(len(tokenizer)), tokenizer, INSTRUCTION, [])
    assert (ranking.scores, ranking.ranks) == ((), ())


# --- identity -----------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path):
    """A program of a user of the library."""
    file = tmp_path / "study.py"
    file.write_text("from implicit_tuning import RuleAdapter\n\nRAMP = 5\n")
    return file


def test_a_fingerprint_follows_code_and_not_how_it_is_written(script):
    before = fingerprint(script)
    script.write_text(
        '"""My study."""\nfrom implicit_tuning import RuleAdapter\nRAMP=5  # tokens\n'
    )
    assert fingerprint(script) == before == fingerprint(str(script))
    script.write_text("from implicit_tuning import RuleAdapter\n\nRAMP = 6\n")
    assert fingerprint(script) != before


def test_a_fingerprint_follows_what_a_script_imports_of_the_package(script, tmp_path, monkeypatch):
    [found] = code._read_file(script).imports
    assert found.module == f"{PACKAGE}.models.rule_adapter"  # what lies behind the door
    package = tmp_path / "scripts" / PACKAGE / "models"
    package.mkdir(parents=True)
    monkeypatch.setattr(code, "SCRIPTS", package.parents[1])

    def with_package(**modules):
        forget_modules()
        for name, text in modules.items():
            (package / f"{name}.py").write_text(text)
        return fingerprint(script)

    before = with_package(rule_adapter="from . import chat", chat="TAG = 1", other="RATE = 1")
    assert with_package(other="RATE = 2") == before
    assert with_package(chat="TAG = 2") != before
    with_package(chat="TAG = 1")
    assert with_package(rule_adapter="from . import chat\nRAMP = 2") != before


@pytest.fixture(autouse=True)
def no_memory_of_modules():
    """Modules are read again in each test."""
    yield
    forget_modules()


def test_a_fingerprint_follows_settings_by_value():
    first = fingerprint(settings={"rate": 0.1, "tags": ["a"]})
    assert fingerprint(settings={"tags": ["a"], "rate": 1e-1}) == first
    assert fingerprint(settings={"rate": 0.1, "tags": ["b"]}) != first
    assert fingerprint(settings=ChatFormat()) != fingerprint(settings=ChatFormat(user="<u>"))
    for bad in ({"path": object()}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match="settings .* are no JSON value"):
            fingerprint(settings=bad)


def test_a_fingerprint_follows_the_content_of_files(tmp_path):
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "part/weights").write_text("1")
    before = fingerprint(files=[folder])
    (folder / ".notes").write_text("of a download")
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint(files=[moved]) == before == fingerprint(files=[str(moved)])
    (moved / "part/weights").write_text("2")
    assert fingerprint(files=[moved]) != before
    assert fingerprint(files=[moved / "part/weights"]) != fingerprint(files=[moved])
    with pytest.raises(FileNotFoundError):
        fingerprint(files=[folder])


def test_a_fingerprint_follows_the_versions_of_libraries(monkeypatch):
    code._installed_version.cache_clear()
    before = fingerprint(libraries=["torch"])
    code._installed_version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    assert fingerprint(libraries=["torch"]) != before
    code._installed_version.cache_clear()


@pytest.mark.parametrize(
    ("code", "libraries", "error", "message"),
    [
        ((), (), ValueError, "of nothing: give code"),
        (("implicit_tuning.nowhere",), (), ModuleNotFoundError, "'implicit_tuning.nowhere'"),
        (
            (),
            ("no-such-thing",),
            ModuleNotFoundError,
            "'no-such-thing' is not installed: install it",
        ),
        (
            (),
            "torch",
            TypeError,
            r"libraries is 'torch': give a list of names, such as \['torch'\]",
        ),
    ],
)
def test_what_has_no_fingerprint_is_refused(code, libraries, error, message):
    with pytest.raises(error, match=message):
        fingerprint(*code, libraries=libraries)


@pytest.mark.parametrize("folder", ["resources", Path("resources")])
def test_one_folder_is_no_list_of_files(folder):
    with pytest.raises(TypeError, match=r"files is 'resources': give a list of names"):
        fingerprint(files=folder)


def test_verdicts_and_pairs_are_part_of_the_library():
    assert Verdict(1.5).status == "ok"
    assert Pair("i", "a", "b").output_2 == "b"
