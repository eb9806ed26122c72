import math
from itertools import combinations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import rule_reference
from implicit_tuning.models.chat import ChatFormat, tokenize_prompt
from implicit_tuning.models.rule_adapter import PAPER_BIAS, RULES, RuleAdapter, RuleSettings
from rule_reference import LLAMA_2_BIAS
from tiny_models import character_tokenizer, llama_2_like, random_model

FORMAT = ChatFormat()
SUBSETS = [subset for size in range(4) for subset in combinations(RULES, size)]
BIAS = {"<": -4.0, "|": -4.0, "\u2581": 2.0, "I": -5.0, "!": 1.0, "\n": 1.0, "\u2581We": -3.0}
RAMP = 16
NEW_TOKENS = 24
INSTRUCTIONS = [
    "Hi",
    "Write a poem called Night, please.",
    "",
    "The tag <|user|> inside, and <|assistant|>\ntoo",
    "aaaa bbbb !!!!",
    "<|user|>",
    "Line\n<|user|>\nbreak",
    "0123456789 (2 + 2 = 5)?",
]


def generate(model, tokenizer, prompts, adapter, new_tokens=NEW_TOKENS, **options):
    """Responses of one batch, padded on the left, cut behind their EOS."""
    eos = tokenizer.eos_token_id
    width = max(map(len, prompts))
    sequences = model.generate(
        input_ids=torch.tensor([[eos] * (width - len(p)) + p for p in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        logits_processor=[adapter],
        max_new_tokens=new_tokens,
        pad_token_id=eos,
        **{"do_sample": False} | options,
    )
    rows = sequences[:, width:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(len(tokenizer), scale=0.5)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenize_prompt(text, tokenizer, FORMAT) for text in INSTRUCTIONS]


def expected(model, tokenizer, prompts, rules, hold=True):
    vocabulary = tokenizer.get_vocab()
    plain = {"\u2581": " "}
    ids = {vocabulary[plain.get(p, p)]: v for p, v in BIAS.items() if plain.get(p, p) in vocabulary}
    return [
        rule_reference.greedy(
            model,
            prompt,
            NEW_TOKENS,
            rules=rules,
            eos=tokenizer.eos_token_id,
            tag=tokenizer(FORMAT.user)["input_ids"],
            bias=ids,
            ramp=RAMP,
            hold=hold,
        )
        for prompt in prompts
    ]


@pytest.mark.parametrize("rules", SUBSETS, ids="+".join)
def test_token_exact_with_the_plain_reference(model, tokenizer, prompts, rules):
    answers = expected(model, tokenizer, prompts, rules)
    batch = generate(model, tokenizer, prompts, RuleAdapter(tokenizer, rules, RAMP, bias=BIAS))
    assert batch == answers
    alone = [
        generate(model, tokenizer, [prompt], RuleAdapter(tokenizer, rules, RAMP, bias=BIAS))[0]
        for prompt in prompts
    ]
    assert alone == answers
    many = generate(model, tokenizer, 4 * prompts, RuleAdapter(tokenizer, rules, RAMP, bias=BIAS))
    assert many == 4 * answers


def test_each_rule_changes_the_text(model, tokenizer, prompts):
    answers = {rules: expected(model, tokenizer, prompts, rules) for rules in SUBSETS}
    for rule in RULES:
        assert answers[(rule,)] != answers[()]
    lengths = [len(answer) for answer in answers[("eos",)]]
    assert len(set(lengths)) > 1, "some rows of the batch must end before others"


def test_olmo(tokenizer, prompts):
    model = random_model(len(tokenizer), "olmo", scale=0.5)
    adapter = RuleAdapter(tokenizer, eos_ramp_tokens=RAMP, bias=BIAS)
    answers = expected(model, tokenizer, prompts, RULES)
    assert generate(model, tokenizer, prompts, adapter) == answers


def steps(adapter, prompt, count, vocabulary, base=None):
    """Adapted scores of `count` steps; token 5 is always chosen."""
    scores = []
    ids = torch.tensor([prompt])
    for _ in range(count):
        logits = torch.zeros(1, vocabulary) if base is None else base.clone()
        scores.append(adapter(ids, logits)[0])
        ids = torch.cat([ids, torch.tensor([[5]])], dim=1)
    return scores


@pytest.mark.parametrize(("after", "at_end"), [("hold", 15.0), ("drop", 0.0)])
def test_eos_ramp(tokenizer, prompts, after, at_end):
    adapter = RuleAdapter(tokenizer, ("eos",), eos_after_ramp=after)
    scores = steps(adapter, prompts[0], 253, len(tokenizer))
    eos = [float(step[tokenizer.eos_token_id]) for step in scores]
    assert eos[:250] == pytest.approx([15 * n / 250 for n in range(250)])
    assert eos[250:] == [at_end] * 3
    assert all(step.count_nonzero() <= 1 for step in scores)


def test_repetition_counts_each_token_behind_the_last_tag_once(tokenizer):
    prompt = tokenizer("z<|user|>\nzz<|user|>\naab\n<|assistant|>\n")["input_ids"]
    adapter = RuleAdapter(tokenizer, ("repetition",))
    scores = steps(adapter, prompt, 3, len(tokenizer))
    behind = set(tokenizer("\naab\n<|assistant|>\n")["input_ids"])
    assert {i for i, score in enumerate(scores[0]) if score} == behind
    assert {i for i, score in enumerate(scores[2]) if score} == behind | {5}
    assert set(scores[2].tolist()) == {0.0, -1.5}


def test_distribution_is_the_product_of_experts(tokenizer, prompts):
    base = 3 * torch.randn(1, len(tokenizer))
    adapter = RuleAdapter(tokenizer, eos_ramp_tokens=RAMP, bias=BIAS)
    sampled_from = steps(adapter, prompts[1], 4, len(tokenizer), base)[3].softmax(-1)
    rules = RuleAdapter(tokenizer, eos_ramp_tokens=RAMP, bias=BIAS)
    alone = steps(rules, prompts[1], 4, len(tokenizer))[3]
    product = base[0].softmax(-1) * alone.softmax(-1)
    torch.testing.assert_close(sampled_from, product / product.sum())


def test_samples_are_the_references(model, tokenizer, prompts):
    adapter = RuleAdapter(tokenizer, eos_ramp_tokens=RAMP, bias=BIAS)
    eos, ids = tokenizer.eos_token_id, list(prompts[1])
    torch.manual_seed(7)
    (answer,) = generate(model, tokenizer, [ids], adapter, do_sample=True, top_k=0)
    torch.manual_seed(7)
    bias = {adapter.resolved[piece]: BIAS[piece] for piece in adapter.resolved}
    for number, token in enumerate(answer):
        scores = rule_reference.rule_scores(
            ids, number, len(tokenizer), RULES, eos, tokenizer(FORMAT.user)["input_ids"], bias, RAMP
        )
        logits = model(torch.tensor([ids])).logits[0, -1]
        total = logits.log_softmax(-1) + scores.log_softmax(-1)
        assert torch.multinomial(total.softmax(-1), 1).item() == token, number
        ids.append(token)
    assert answer != generate(model, tokenizer, prompts[1:2], adapter)[0]


def test_adds_in_fp32_and_leaves_the_logits_alone(tokenizer, prompts):
    logits = torch.randn(1, len(tokenizer)).bfloat16()
    before = logits.clone()
    adapted = RuleAdapter(tokenizer, bias=BIAS)(torch.tensor([prompts[0]]), logits)
    rules = RuleAdapter(tokenizer, bias=BIAS)(torch.tensor([prompts[0]]), torch.zeros_like(logits))
    assert adapted.dtype == torch.float32
    assert torch.equal(adapted, before.float() + rules)
    assert torch.equal(logits, before)


def test_scores_and_logits_of_every_step_can_be_returned(model, tokenizer, prompts):
    result = model.generate(
        input_ids=torch.tensor([prompts[0]]),
        logits_processor=[RuleAdapter(tokenizer, ("bias",), bias=BIAS)],
        max_new_tokens=4,
        pad_token_id=tokenizer.eos_token_id,
        do_sample=False,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    bias = steps(RuleAdapter(tokenizer, ("bias",), bias=BIAS), prompts[0], 1, len(tokenizer))[0]
    for scores, logits in zip(result.scores, result.logits, strict=True):
        torch.testing.assert_close(scores - logits, bias[None])


def test_row_without_user_tag_is_refused(model, tokenizer, prompts):
    bad = tokenizer("no tag <|user |>")["input_ids"]
    with pytest.raises(ValueError, match="row 1 of the prompts has no user tag"):
        generate(model, tokenizer, [prompts[0], bad], RuleAdapter(tokenizer, bias=BIAS))
    other = ChatFormat(user="<|A|>", assistant="<|B|>")
    with pytest.raises(ValueError, match="pass the chat_format"):
        generate(model, tokenizer, prompts, RuleAdapter(tokenizer, bias=BIAS, chat_format=other))


def test_one_adapter_serves_many_calls(model, tokenizer, prompts):
    adapter = RuleAdapter(tokenizer, bias=BIAS)
    for chosen in (prompts[:2], prompts[2:5], prompts[:2], prompts[:2], prompts[5:6]):
        fresh = generate(model, tokenizer, chosen, RuleAdapter(tokenizer, bias=BIAS))
        assert generate(model, tokenizer, chosen, adapter) == fresh


def test_prompts_one_token_longer_than_the_last_text_are_new_ones(tokenizer):
    adapter = RuleAdapter(tokenizer, ("eos", "repetition"))
    short = tokenizer("<|user|>\nab\n<|assistant|>\n")["input_ids"]
    steps(adapter, short, 3, len(tokenizer))
    longer = tokenizer("<|user|>\nabcde\n<|assistant|>\n")["input_ids"]
    assert len(longer) == len(short) + 3
    (scores,) = steps(adapter, longer, 1, len(tokenizer))
    fresh = RuleAdapter(tokenizer, ("eos", "repetition"))
    assert torch.equal(scores, steps(fresh, longer, 1, len(tokenizer))[0])


def test_prompts_that_end_like_the_last_text_are_new_ones(tokenizer):
    adapter = RuleAdapter(tokenizer, ("repetition",))
    adapter(torch.tensor([tokenizer("<|user|>b" + 9 * "a")["input_ids"]]), torch.zeros(1, 100))
    other = torch.tensor([tokenizer("<|user|>c" + 15 * "a")["input_ids"]])
    scores = adapter(other, torch.zeros(1, 100))[0]
    assert {i for i, score in enumerate(scores) if score} == set(tokenizer("ca")["input_ids"])


def test_a_further_turn_begins_anew(tokenizer):
    adapter = RuleAdapter(tokenizer, ("eos", "repetition"))
    first = tokenizer("<|user|>\nab\n<|assistant|>\n")["input_ids"]
    steps(adapter, first, 2, len(tokenizer))
    further = [*first, 5, 5, *tokenizer("<eos>\n<|user|>\nc\n<|assistant|>\n")["input_ids"]]
    (scores,) = steps(adapter, further, 1, len(tokenizer))
    assert {i for i, score in enumerate(scores) if score} == set(
        tokenizer("\nc\n<|assistant|>\n")["input_ids"]
    )


def test_rows_that_change_places_are_refused(model, tokenizer, prompts):
    with pytest.raises(ValueError, match="beam search"):
        generate(model, tokenizer, prompts, RuleAdapter(tokenizer, bias=BIAS), num_beams=3)


def test_tokens_that_are_taken_back_are_refused(model, tokenizer, prompts):
    """As assisted generation does with those that it guessed wrong."""
    adapter = RuleAdapter(tokenizer, bias=BIAS)
    with pytest.raises(ValueError, match="assisted generation"):
        generate(model, tokenizer, prompts[1:2], adapter, prompt_lookup_num_tokens=3)


def follow(adapter, tokenizer, prompts, responses, tag):
    """Asserts that the scores of texts which grow as given are the reference's, at every step;
    prompts stand behind padding, and responses that end before others are followed by it."""
    eos, vocabulary = tokenizer.eos_token_id, len(tokenizer)
    width, steps = max(map(len, prompts)), max(map(len, responses))
    padded = [[eos] * (width - len(prompt)) + prompt for prompt in prompts]
    for end in range(steps + 1):
        rows = [
            prompt + response[:end] + [eos] * (end - len(response))
            for prompt, response in zip(padded, responses, strict=True)
        ]
        scores = adapter(torch.tensor(rows), torch.zeros(len(rows), vocabulary))
        for prompt, response, row in zip(prompts, responses, scores, strict=True):
            if end <= len(response):
                expected = rule_reference.rule_scores(
                    prompt + response[:end], end, vocabulary, ("repetition",), eos, tag, {}
                )
                assert torch.equal(row, expected), (response, end)


def test_a_tag_in_the_response_is_the_last_one(tokenizer):
    prompts = [tokenize_prompt(text, tokenizer, FORMAT) for text in ("ab", "<|user|>", "a longer")]
    texts = ["xy<|user|>z", "<|user|<|user|>", "<|user|>ab<|user|>c<|user|>"]
    responses = [tokenizer(text)["input_ids"] for text in texts]
    tag = tokenizer("<|user|>")["input_ids"]
    follow(RuleAdapter(tokenizer, ("repetition",)), tokenizer, prompts, responses, tag)


@pytest.mark.parametrize("tag", ["\u7528\u6237", "User\u00bb"])
def test_a_tag_of_other_letters_is_found_in_its_bytes(tag):
    tokenizer = byte_level()
    chat_format = ChatFormat(user=tag)
    prompts = [tokenize_prompt(text, tokenizer, chat_format) for text in ("ab", "\u7528")]
    responses = [tokenizer(text)["input_ids"] for text in (f"\u6237x{tag}y", f"{tag[0]}{tag}")]
    adapter = RuleAdapter(tokenizer, ("repetition",), chat_format=chat_format)
    follow(adapter, tokenizer, prompts, responses, tokenizer(tag)["input_ids"])


def test_a_tag_that_ends_in_a_byte_token_is_found():
    tokenizer = llama_2_like(without="]")
    chat_format = ChatFormat(user="[U]")
    adapter = RuleAdapter(tokenizer, ("repetition",), chat_format=chat_format)
    tag = tokenizer("[U]")["input_ids"]
    assert tag[-1] == tokenizer.convert_tokens_to_ids("<0x5D>")
    prompt = tokenize_prompt("ab", tokenizer, chat_format)
    follow(adapter, tokenizer, [prompt], [[*tag, 500, 501]], tag)


def test_the_last_letter_of_a_tag_alone_is_none():
    tokenizer = character_tokenizer(merges=(("<", "|"), ("|", ">"), ("u", "s"), ("e", "r")))
    prompt = tokenize_prompt("a|>", tokenizer, FORMAT)
    tag = tokenizer("<|user|>")["input_ids"]
    assert len(tag) == 4
    response = tokenizer("x<|user|>y>z|>")["input_ids"]
    follow(RuleAdapter(tokenizer, ("repetition",)), tokenizer, [prompt], [response], tag)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": "eos"}, "rules is the text 'eos'"),
        ({"repetition_penalty": -1.5}, "repetition_penalty is -1.5: it must not be negative"),
        ({"eos_strength": -1.0}, "eos_strength is -1.0"),
        ({"eos_strength": math.nan}, "eos_strength is nan: give a finite number"),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf: give a finite number"),
        ({"bias": {"!": 1.0, "I": math.nan}}, "bias of 'I' is nan: give a finite number"),
        ({"eos_ramp_tokens": 2.5}, "eos_ramp_tokens is 2.5: it must be a whole number"),
        ({"eos_ramp_tokens": math.nan}, "eos_ramp_tokens is nan"),
        ({"chat_format": "chatml"}, "chat_format is 'chatml': give a ChatFormat"),
        (
            {"chat_format": ChatFormat(own_template=True)},
            "own_template, under which .* no user tag",
        ),
    ],
)
def test_values_that_cannot_be_meant_are_refused(tokenizer, values, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RuleAdapter(tokenizer, **{"bias": BIAS, **values})


def test_other_tags_and_merged_line_breaks(prompts):
    # The tag's last character merges with the line break behind it, as in many byte-level BPEs.
    tokenizer = character_tokenizer(merges=((">", "\n"),))
    prompt = tokenize_prompt("ab", tokenizer, ChatFormat(user="<|A|>"))
    adapter = RuleAdapter(tokenizer, ("repetition",), chat_format=ChatFormat(user="<|A|>"))
    (scores,) = steps(adapter, prompt, 1, len(tokenizer))
    behind = set(tokenizer("ab\n<|assistant|>\n")["input_ids"])
    assert {i for i, score in enumerate(scores) if score} == behind


def test_paper_pieces_are_llama_2_ids():
    tokenizer = llama_2_like()
    assert len(tokenizer) == 32_000
    adapter = RuleAdapter(tokenizer)
    assert adapter.unresolved == ()
    assert {adapter.resolved[p]: v for p, v in PAPER_BIAS.items()} == LLAMA_2_BIAS
    prompt = tokenize_prompt("I say <|user|> and <", tokenizer, FORMAT)
    ids = prompt.index(529)
    assert prompt[ids : ids + 2] == [529, 29989], "the tag begins as Llama-2 begins it"
    (scores,) = steps(RuleAdapter(tokenizer), prompt, 1, 32_000)
    reference = rule_reference.rule_scores(
        prompt, 0, 32_000, RULES, eos=2, tag=tokenizer("<|user|>")["input_ids"], bias=LLAMA_2_BIAS
    )
    torch.testing.assert_close(scores, reference)


def byte_level(*merges):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces = ["<eos>", *sorted(alphabet), *("".join(merge) for merge in merges)]
    backend = Tokenizer(models.BPE(vocab={p: n for n, p in enumerate(pieces)}, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_pieces_of_a_byte_level_tokenizer():
    tokenizer = byte_level(("W", "e"), ("\u0120", "We"), ("\u0120", "I"), ("\u00c3", "\u00a9"))
    bias = {"\u2581We": -3, "We": 1, "\u2581I": -5, "\n": 1, "\u00e9": 2, "\u2581should": -6}
    adapter = RuleAdapter(tokenizer, bias=bias)
    for piece, token in adapter.resolved.items():
        assert tokenizer(piece.replace("\u2581", " "))["input_ids"] == [token]
    assert list(adapter.resolved) == ["\u2581We", "We", "\u2581I", "\n", "\u00e9"]
    assert adapter.unresolved == ("\u2581should",)


def test_bias_without_any_known_piece_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no piece of the token bias"):
        RuleAdapter(tokenizer, bias={"\u2581We": -3})
    with pytest.raises(ValueError, match="same token"):
        RuleAdapter(tokenizer, bias={"\u2581": 1, " ": 2})
    assert RuleAdapter(tokenizer, ("eos",), bias={"\u2581We": -3}).resolved == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": ("start",)}, "unknown rules \\['start'\\]"),
        ({"eos_ramp_tokens": 0}, "eos_ramp_tokens is 0"),
        ({"eos_after_ramp": "stop"}, "choose 'hold' or 'drop'"),
    ],
)
def test_bad_values_are_refused(tokenizer, values, message):
    with pytest.raises(ValueError, match=message):
        RuleAdapter(tokenizer, **values)


def test_tokenizer_without_eos_is_refused():
    with pytest.raises(ValueError, match="no EOS token"):
        RuleAdapter(character_tokenizer(eos=False))


def test_default_settings_are_the_adapters():
    settings = RuleSettings()
    assert settings.rules == RULES and settings.bias == PAPER_BIAS
