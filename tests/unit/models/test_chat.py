import subprocess
import sys
from itertools import groupby

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from implicit_tuning.models.chat import (
    ChatFormat,
    prompt_text,
    saved_chat_template,
    tokenize_conversation,
    tokenize_prompt,
)
from tiny_models import BOS, EOS, character_tokenizer

FORMAT = ChatFormat()
LONG = 10_000


def turns(*contents, first="user"):
    roles = ["user", "assistant"] if first == "user" else ["system", "user", "assistant"]
    extra = ["user", "assistant"] * len(contents)
    return [
        {"role": role, "content": content}
        for role, content in zip(roles + extra, contents, strict=False)
    ]


def learned(tokens, tokenizer):
    """The stretches of text with loss."""
    pairs = zip(tokens.input_ids, tokens.loss_mask, strict=True)
    groups = groupby(pairs, key=lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in group]) for counted, group in groups if counted]


def test_training_text_and_mask():
    tokenizer = character_tokenizer()
    tokens = tokenize_conversation(turns(" Say hi \n", "\n hi! \t"), tokenizer, FORMAT, LONG)
    assert tokenizer.decode(tokens.input_ids) == f"<|user|>\nSay hi\n<|assistant|>\nhi!{EOS}"
    assert learned(tokens, tokenizer) == [f"hi!{EOS}"]
    assert not tokens.truncated and not tokens.lost_eos


def test_response_tuning_keeps_the_empty_user_turn():
    tokenizer = character_tokenizer()
    tokens = tokenize_conversation(turns("", "hi"), tokenizer, FORMAT, LONG)
    assert tokenizer.decode(tokens.input_ids) == f"<|user|>\n\n<|assistant|>\nhi{EOS}"


def test_every_assistant_turn_has_loss_and_system_turns_have_none():
    tokenizer = character_tokenizer()
    messages = turns("Be kind", "a", "b c", "d", "e", first="system")
    tokens = tokenize_conversation(messages, tokenizer, FORMAT, LONG)
    assert tokenizer.decode(tokens.input_ids) == (
        f"<|system|>\nBe kind\n<|user|>\na\n<|assistant|>\nb c{EOS}\n"
        f"<|user|>\nd\n<|assistant|>\ne{EOS}"
    )
    assert learned(tokens, tokenizer) == [f"b c{EOS}", f"e{EOS}"]


def test_tags_inside_texts_make_no_turns():
    tokenizer = character_tokenizer()
    messages = turns("write <|assistant|>\nno", "x\n<|user|>\ny\n<|assistant|>\nz")
    tokens = tokenize_conversation(messages, tokenizer, FORMAT, LONG)
    assert learned(tokens, tokenizer) == [f"x\n<|user|>\ny\n<|assistant|>\nz{EOS}"]


def test_other_tags():
    tokenizer = character_tokenizer()
    other = ChatFormat(user="<|A|>", assistant='<|"B\\|>')
    tokens = tokenize_conversation(turns("q", "a"), tokenizer, other, LONG)
    assert tokenizer.decode(tokens.input_ids) == f'<|A|>\nq\n<|"B\\|>\na{EOS}'
    assert prompt_text("q", other) == '<|A|>\nq\n<|"B\\|>\n'


@pytest.mark.parametrize("user", ["", " <|user|>", "<|assistant|>"])
def test_unusable_tags_are_refused(user):
    with pytest.raises(ValueError, match="must be distinct"):
        ChatFormat(user=user)


def test_bos_only_where_the_tokenizer_adds_it():
    with_bos = character_tokenizer(bos=True)
    tokens = tokenize_conversation(turns("q", "a"), with_bos, FORMAT, LONG)
    assert with_bos.decode(tokens.input_ids) == f"{BOS}<|user|>\nq\n<|assistant|>\na{EOS}"
    assert learned(tokens, with_bos) == [f"a{EOS}"]

    has_but_does_not_add = character_tokenizer()
    has_but_does_not_add.bos_token = BOS
    prompt = tokenize_prompt("q", has_but_does_not_add, FORMAT)
    assert has_but_does_not_add.decode(prompt) == prompt_text("q", FORMAT)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("instruction", ["q", "", " two\nlines ", "ends with <|user|>"])
def test_prompt_is_a_prefix_of_training_and_what_the_library_renders(bos, instruction):
    tokenizer = character_tokenizer(bos=bos)
    prompt = tokenize_prompt(instruction, tokenizer, FORMAT)
    tokens = tokenize_conversation(turns(instruction, "a"), tokenizer, FORMAT, LONG)
    assert list(tokens.input_ids[: len(prompt)]) == prompt
    assert tokens.loss_mask == (0,) * len(prompt) + (1, 1)

    tokenizer.chat_template = saved_chat_template(tokenizer, FORMAT)
    asked = [{"role": "user", "content": instruction}]
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert rendered == prompt


def test_cut_counts_rows_that_lose_an_eos():
    tokenizer = character_tokenizer()
    messages = turns("q", "abc", "r", "d")
    whole = tokenize_conversation(messages, tokenizer, FORMAT, LONG)
    exact = tokenize_conversation(messages, tokenizer, FORMAT, len(whole.input_ids))
    assert exact == whole
    cut = tokenize_conversation(messages, tokenizer, FORMAT, len(whole.input_ids) - 1)
    assert cut.truncated and cut.lost_eos and learned(cut, tokenizer) == [f"abc{EOS}", "d"]
    asking = [*turns("q", "abc"), {"role": "user", "content": "a long last question"}]
    cut = tokenize_conversation(asking, tokenizer, FORMAT, 40)
    assert cut.truncated and not cut.lost_eos


def test_merge_across_the_start_of_a_response_is_refused():
    tokenizer = character_tokenizer(merges=(("\n", "T"),))
    assert tokenize_conversation(turns("q", "t"), tokenizer, FORMAT, LONG).input_ids
    with pytest.raises(ValueError, match="merges text across the start"):
        tokenize_conversation(turns("q", "T"), tokenizer, FORMAT, LONG)


def test_eos_that_is_no_token_of_its_own_is_refused():
    vocabulary = {c: i for i, c in enumerate("<>|/abcdefghijklmnopqrstuvwxyz\n")}
    plain = Tokenizer(models.BPE(vocab={**vocabulary, "</s>": 99}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    tokenizer._special_tokens_map["eos_token"] = AddedToken("</s>", special=False)
    with pytest.raises(ValueError, match="as one token"):
        tokenize_conversation(turns("q", "a"), tokenizer, FORMAT, LONG)


def test_missing_eos_names_the_folder_and_the_fix(tmp_path):
    character_tokenizer(eos=False).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no EOS token: set 'eos_token'") as error:
        tokenize_prompt("q", tokenizer, FORMAT)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ([{"role": "assistant", "content": "x"}], "cannot start with the assistant"),
        ([{"role": "bot", "content": "x"}], "'bot'.* needs a 'role' out of"),
        ([{"role": "user", "content": None}], "None.* needs .* text under 'content'"),
    ],
)
def test_bad_messages_are_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        tokenize_conversation(messages, character_tokenizer(), FORMAT, LONG)


def test_sentencepiece_like_tokenizer_with_prefix_space():
    vocabulary = {p: i for i, p in enumerate([EOS, BOS, "\u2581", *map(chr, range(33, 127)), "\n"])}
    backend = Tokenizer(models.BPE(vocab={**vocabulary, "\u2581<": 200}, merges=[("\u2581", "<")]))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(EOS, special=True), AddedToken(BOS, special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)
    tokens = tokenize_conversation(turns("q", "a b", "r", "c"), tokenizer, FORMAT, LONG)
    assert len(learned(tokens, tokenizer)) == 2
    prompt = tokenize_prompt("q", tokenizer, FORMAT)
    assert prompt[0] == 200 and list(tokens.input_ids[: len(prompt)]) == prompt


def test_import_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from implicit_tuning.models.chat import ChatFormat, prompt_text;"
        "prompt_text('q', ChatFormat());"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
