import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed, multiprocessing
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM

from implicit_tuning.training import micro_batches as module
from implicit_tuning.training import packed_attention
from implicit_tuning.training.micro_batches import PackedLoss, micro_batches, packed_loss
from implicit_tuning.training.packed_attention import (
    Packing,
    attention_implementation,
    eager_attention,
    sdpa_attention,
    varlen_attention,
)
from implicit_tuning.training.weighting import IGNORED, token_weights

VOCABULARY = 40
# Prompt and response tokens of each example: one-token responses, one example of 66 tokens.
SHAPES = [(3, 1), (5, 2), (40, 26), (4, 30), (9, 9), (1, 2), (12, 25), (7, 1)]
GQA = {"num_key_value_heads": 2}
EXPERTS = {"num_local_experts": 2, "head_dim": 8}
FAMILIES = {
    "llama": ("llama", {}),
    "llama with grouped heads": ("llama", GQA),
    "llama with tied embeddings": ("llama", {**GQA, "tie_word_embeddings": True}),
    "olmo": ("olmo", {}),
    "qwen2": ("qwen2", {**GQA, "tie_word_embeddings": True}),
}
OTHERS = {
    "olmo2": GQA,
    "olmo3": GQA,
    "qwen3": {**GQA, "head_dim": 16},
    "qwen3_moe": {**GQA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gemma": {**GQA, "head_dim": 8},
    "gemma3_text": {**GQA, "head_dim": 8, "query_pre_attn_scalar": 3},
    "mistral": {**GQA, "sliding_window": 66},
    "smollm3": GQA,
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}


def make_model(family, attention, **settings):
    """Two layers, random weights wide enough that examples would notice each other."""
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": None,
            **settings,
        },
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def packed_model(family="llama", attention="sdpa", **settings):
    return make_model(family, attention_implementation(attention, "cpu"), **settings)


def make_examples(shapes=SHAPES):
    """Input ids and labels of each example."""
    generator = torch.Generator().manual_seed(1)
    examples = []
    for prompt, response in shapes:
        ids = torch.randint(VOCABULARY, (prompt + response,), generator=generator).tolist()
        examples.append((ids, [IGNORED] * prompt + ids[prompt:]))
    return examples


def plain_loss(model, examples, weighting):
    """The mean over examples, or over tokens, with each example run alone."""
    losses = []
    for ids, labels in examples:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        losses.append(functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="none"))
    counted = [sum(label != IGNORED for label in labels[1:]) for _, labels in examples]
    if weighting == "token":
        return torch.cat(losses).sum() / sum(counted)
    pairs = zip(losses, counted, strict=True)
    return torch.stack([loss.sum() / count for loss, count in pairs]).mean()


def accumulated_loss(packed, examples, weighting="example", max_tokens=100):
    """Backward through all micro-batches of an update."""
    counted = [sum(label != IGNORED for label in labels) for _, labels in examples]
    weights = token_weights(counted, weighting)
    total = 0.0
    for group in micro_batches([len(ids) for ids, _ in examples], max_tokens):
        ids, labels = zip(*(examples[i] for i in group), strict=True)
        loss = packed_loss(packed, ids, labels, [weights[i] for i in group])
        assert loss.dtype == torch.float32 and loss.shape == ()
        loss.backward()
        total += loss.item()
    return total


def gradient(model):
    """All gradients as one vector; sets them back."""
    vector = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    return vector


def distance(vector, expected):
    return ((vector - expected).norm() / expected.norm()).item()


def plain_gradient(model, examples, weighting="example"):
    loss = plain_loss(model, examples, weighting)
    loss.backward()
    return loss.item(), gradient(model)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weighting", ["example", "token"])
def test_any_split_gives_the_loss_and_gradient_of_examples_alone(family, weighting):
    kind, settings = FAMILIES[family]
    examples = make_examples()
    expected_loss, expected = plain_gradient(
        make_model(kind, "sdpa", **settings), examples, weighting
    )
    model = packed_model(kind, **settings)
    packed = PackedLoss(model)
    for max_tokens in (1, 40, 70, 1000):
        loss = accumulated_loss(packed, examples, weighting, max_tokens)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert distance(gradient(model), expected) <= 1e-5


@pytest.mark.parametrize("family", OTHERS)
def test_other_architectures(family):
    examples = make_examples()
    expected_loss, expected = plain_gradient(
        make_model(family, "eager", **OTHERS[family]), examples
    )
    model = packed_model(family, **OTHERS[family])
    loss = accumulated_loss(PackedLoss(model), examples)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient(model), expected) <= 1e-5


def test_the_two_weightings_differ():
    packed = PackedLoss(packed_model())
    losses = [accumulated_loss(packed, make_examples(), w) for w in ("example", "token")]
    assert abs(losses[0] - losses[1]) > 1e-2


def test_attention_written_out_gives_the_same():
    examples = make_examples()
    expected_loss, expected = plain_gradient(make_model("llama", "eager", **GQA), examples)
    model = packed_model("llama", "eager", **GQA)
    assert accumulated_loss(PackedLoss(model), examples) == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient(model), expected) <= 1e-5


def head_rows(model):
    """How many tokens each call of the head gets, as they come."""
    rows = []
    model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: rows.append(output.numel() // VOCABULARY)
    )
    return rows


@pytest.mark.parametrize("chunk", [1, 7, 24, 48, 95, 96, 97])
def test_chunks_change_nothing_and_bound_the_logits(monkeypatch, chunk):
    examples = make_examples()
    expected_loss, expected = plain_gradient(make_model("llama", "sdpa"), examples)
    monkeypatch.setattr(module, "CHUNK_TOKENS", chunk)
    model = packed_model()
    packed, rows = PackedLoss(model), head_rows(model)
    loss = accumulated_loss(packed, examples, max_tokens=1000)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient(model), expected) <= 1e-5
    responses = sum(response for _, response in SHAPES)
    assert responses == 96, "logits of response tokens alone"
    passes = 1 if chunk >= responses else 2  # the second is in the backward pass
    assert max(rows) <= chunk and sum(rows) == passes * responses
    assert len(rows) == passes * math.ceil(responses / chunk)


def test_activation_checkpointing_changes_nothing():
    examples = make_examples()
    model = packed_model("llama", **GQA)
    packed = PackedLoss(model.train())
    expected_loss, expected = accumulated_loss(packed, examples), gradient(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    layers = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: layers.append(1))
    assert accumulated_loss(packed, examples) == pytest.approx(expected_loss, rel=1e-6)
    assert distance(gradient(model), expected) <= 1e-6
    assert len(layers) == 2 * len(micro_batches([sum(shape) for shape in SHAPES], 100))


def test_bfloat16_compute_is_as_exact_as_without_packing():
    """bf16 alone moves the gradient by a few per cent; packing may move it no further."""
    examples = make_examples()
    stock, model = make_model("llama", "sdpa", **GQA), packed_model("llama", **GQA)
    loss, expected = plain_gradient(stock, examples)
    packed = PackedLoss(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss_stock, rounded = plain_gradient(stock, examples)
        loss_packed = accumulated_loss(packed, examples)
    error = distance(rounded, expected)
    assert 1e-3 < error < 0.1
    assert distance(gradient(model), expected) <= 1.5 * error
    assert loss_packed == pytest.approx(loss, rel=2 * abs(loss_stock - loss) / loss + 1e-3)


def test_the_loss_of_bfloat16_logits_is_taken_in_fp32():
    examples = make_examples([(7, 1)])
    loss, _ = plain_gradient(make_model("llama", "sdpa").bfloat16(), examples)
    packed = PackedLoss(packed_model().bfloat16())
    assert accumulated_loss(packed, examples) == pytest.approx(loss, rel=1e-5)


def test_adapters_train_alone():
    examples = make_examples()
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    models = [make_model("llama", "sdpa", **GQA), packed_model("llama", **GQA)]
    adapted = []
    for model in models:
        torch.manual_seed(2)
        adapted.append(get_peft_model(model, settings).eval())
    expected_loss, expected = plain_gradient(adapted[0], examples)
    loss = accumulated_loss(PackedLoss(adapted[1]), examples)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient(adapted[1]), expected) <= 1e-5
    assert models[1].get_output_embeddings().weight.grad is None


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_example_without_weight_or_loss_gives_a_gradient_of_zeros(weight):
    model = packed_model()
    labels = [[IGNORED] * 4] if weight else [[1, 2, 3, 4]]
    loss = packed_loss(PackedLoss(model), [[1, 2, 3, 4]], labels, [weight])
    loss.backward()
    assert loss.item() == 0
    assert not gradient(model).any(), "and every parameter has one, as wrappers need"


def test_dropout_stays():
    examples = make_examples()
    for attention in ("sdpa", "eager"):
        packed = PackedLoss(packed_model("llama", attention, attention_dropout=0.5))
        still = accumulated_loss(packed, examples)
        packed.train()
        torch.manual_seed(3)
        dropped = accumulated_loss(packed, examples)
        assert abs(dropped - still) > 1e-3
        torch.manual_seed(3)
        assert accumulated_loss(packed, examples) == dropped


def test_a_checkpoint_says_nothing_of_packing(tmp_path):
    packed = PackedLoss(packed_model())
    packed.model.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"


# --- micro-batches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([], []),
        ([3], [[0]]),
        ([4, 6, 5, 5], [[1, 0], [2, 3]]),
        ([5, 5, 5], [[0, 1], [2]]),
        ([2, 30, 8, 1], [[1], [2, 0], [3]]),
    ],
)
def test_groups_are_filled_longest_first(lengths, groups):
    assert micro_batches(lengths, 10) == groups


def test_groups_hold_every_example_once_within_the_limit_and_are_few():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = torch.randint(1, 2048, (64,), generator=generator).tolist()
        groups = micro_batches(lengths, 4096)
        assert sorted(i for group in groups for i in group) == list(range(64))
        assert all(sum(lengths[i] for i in group) <= 4096 for group in groups)
        assert len(groups) <= math.ceil(sum(lengths) / 4096) + 1


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "settings", "complaint"),
    [
        ("cohere", {}, "CohereForCausalLM has more than one linear layer between"),
        ("granite", {"logits_scaling": 2.0}, "more than one linear layer between"),
        ("minicpm3", {"dim_model_base": 16}, "more than one linear layer between"),
        ("stablelm", {}, "StableLmForCausalLM does not attend, or not in all layers"),
        ("lfm2", {**GQA, "layer_types": ["conv", "full_attention"]}, "or not in all layers"),
        ("llama4_text", {**GQA, **EXPERTS}, "or not in all layers"),
        (
            "llama4_text",
            {**GQA, **EXPERTS, "layer_types": ["full_attention"] * 2},
            "Llama4ForCausalLM names no decoder and head of its own",
        ),
    ],
)
def test_models_that_packing_would_change_are_refused(family, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        PackedLoss(packed_model(family, **settings))


def test_a_soft_cap_is_refused_however_weak():
    model = packed_model("nanochat", **GQA, final_logit_softcapping=1e4)
    with pytest.raises(ValueError, match="a soft cap"):
        PackedLoss(model)


def test_a_model_that_looks_across_examples_is_found_out(monkeypatch):
    model = packed_model()
    monkeypatch.setattr(
        type(model.model.layers[0].self_attn),
        "forward",
        lambda self, hidden_states, **_: (hidden_states.cumsum(1), None),
    )
    with pytest.raises(ValueError, match=r"LlamaForCausalLM mixes the examples .* differs by"):
        PackedLoss(model)


def test_a_model_that_ignores_positions_is_found_out(monkeypatch):
    model = packed_model()
    forward = type(model.model).forward
    monkeypatch.setattr(
        type(model.model),
        "forward",
        lambda self, position_ids, **rest: forward(
            self, position_ids=torch.arange(position_ids.numel())[None] ** 2, **rest
        ),
    )
    with pytest.raises(ValueError, match="mixes the examples"):
        PackedLoss(model)


def test_a_model_whose_weights_another_process_holds_is_not_run():
    with torch.device("meta"):
        model = packed_model()
    assert PackedLoss(model).model is model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_across_examples_is_refused(attention):
    with pytest.raises(ValueError, match=f"attention '{attention}', which mixes the examples"):
        PackedLoss(make_model("llama", attention))


def test_a_model_with_packed_attention_does_not_run_by_itself():
    model = packed_model()
    with pytest.raises(ValueError, match="LlamaAttention does not know where the examples .* lie"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_a_refused_model_is_left_as_it_was():
    model = make_model("cohere", attention_implementation("eager", "cpu")).train()
    with pytest.raises(ValueError, match="soft cap"):
        PackedLoss(model)
    assert model.training and model.config._attn_implementation == "packed_eager"
    assert not model.get_output_embeddings()._forward_hooks


def test_examples_longer_than_the_sliding_window_are_refused():
    packed = PackedLoss(packed_model("mistral", **GQA, sliding_window=65))
    with pytest.raises(ValueError, match=r"66 tokens .* MistralAttention, 65, .* max_length to"):
        accumulated_loss(packed, make_examples())


def test_unknown_attention_and_the_wrong_device_are_refused():
    with pytest.raises(ValueError, match="'flash' is unknown: choose from sdpa, eager, varlen"):
        attention_implementation("flash", "cpu")
    with pytest.raises(ValueError, match="'varlen' does not run on device 'cpu': set attention"):
        attention_implementation("varlen", "cpu")


def attend(attention, heads=2, tokens=3, **keywords):
    """Call an attention function on examples of 2 tokens and 1."""
    torch.manual_seed(4)
    query, key, value = torch.randn(3, 1, heads, tokens, 8).unbind()
    packing = Packing.of((2, 1), query.device)
    keywords = {"attention_mask": None, "packing": packing, **keywords}
    return attention(torch.nn.Identity(), query, key, value, **keywords)[0]


@pytest.mark.parametrize("attention", [sdpa_attention, eager_attention, varlen_attention])
@pytest.mark.parametrize(
    ("keywords", "complaint"),
    [
        ({"softcap": 30.0}, "Identity asks for softcap, which packed attention lacks"),
        ({"s_aux": torch.ones(2), "position_bias": 1}, "asks for position_bias, s_aux, which"),
        ({"is_causal": False}, "not causal over one row of 3 tokens"),
        ({"attention_mask": torch.zeros(3, 3)}, "not causal over one row of 3 tokens"),
        ({"tokens": 4}, "not causal over one row of 3 tokens"),
        ({"packing": None}, "does not know where the examples"),
        ({"sliding_window": 1}, "an example of 2 tokens is longer than the sliding window"),
    ],
)
def test_layers_get_what_they_ask_for_or_an_error(attention, keywords, complaint):
    with pytest.raises(ValueError, match=complaint):
        attend(attention, **keywords)


@pytest.mark.parametrize("attention", [sdpa_attention, eager_attention])
def test_scaling_and_dropout_are_honoured(attention):
    plain = attend(attention)
    assert torch.equal(plain, attend(attention, softcap=None, is_causal=True, use_cache=False))
    assert torch.allclose(plain, attend(attention, scaling=8**-0.5))
    halved = attend(attention, scaling=8**-0.5 / 2)
    assert torch.allclose(plain[:, [0, 2]], halved[:, [0, 2]]), "a token alone has one share"
    assert not torch.allclose(plain[:, 1], halved[:, 1])
    dropped = attend(attention, dropout=0.5)
    assert not torch.allclose(plain, dropped)


def test_varlen_attention_is_refused_in_fp32():
    with pytest.raises(ValueError, match=r"needs half precision .* not torch.float32 on cpu"):
        attend(varlen_attention)


# --- several processes --------------------------------------------------------------------------


def train_on_its_share(rank, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    # In a function of its own: a wrapper that outlives the group can wait for it for ever.
    torch.save(share_of_gradient(rank), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def share_of_gradient(rank):
    """7 chunks of logits in the first process, 1 in the second, and the same gradient in both."""
    module.CHUNK_TOKENS = 10
    model = packed_model()
    wrapped, rows = DistributedDataParallel(PackedLoss(model)), head_rows(model)
    examples = make_examples()[2:5] if rank == 0 else make_examples()[:2]
    ids, labels = zip(*examples, strict=True)
    packed_loss(wrapped, ids, labels, [1.0] * len(ids)).backward()
    return gradient(model), rows


@pytest.mark.long
def test_processes_call_the_head_equally_often(tmp_path):
    multiprocessing.spawn(train_on_its_share, args=(tmp_path,), nprocs=2)
    (first, rows), (second, other_rows) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(rows) == len(other_rows) == 2 * 7 and sum(other_rows) == 2 * 3
    examples = make_examples()[:5]
    model = packed_model()
    ids, labels = zip(*examples, strict=True)
    packed_loss(PackedLoss(model), ids, labels, [0.5] * 5).backward()
    assert torch.equal(first, second)
    assert distance(first, gradient(model)) <= 1e-5


def test_varlen_attention_gets_one_precision_under_autocast(monkeypatch):
    """Without a GPU: rotated queries and keys are fp32 under autocast, and the kernel takes none."""
    seen = []

    def kernel(query, key, value, *lengths, **settings):
        seen.append({part.dtype for part in (query, key, value)})
        return query.new_zeros(query.shape)

    monkeypatch.setattr(packed_attention, "varlen_attn", kernel)
    monkeypatch.setattr(packed_attention, "_require_half_precision", lambda query: None)
    packed = PackedLoss(make_model("llama", attention_implementation("varlen", "cuda")))
    with torch.autocast("cpu", torch.bfloat16):
        accumulated_loss(packed, make_examples())
    assert seen and all(dtypes == {torch.bfloat16} for dtypes in seen)


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen attention needs a GPU")
@pytest.mark.parametrize("settings", [{}, GQA])
def test_varlen_attention_is_as_exact_as_sdpa(settings):
    examples = make_examples()
    size = {"hidden_size": 128}  # heads of 32
    _, expected = plain_gradient(make_model("llama", "sdpa", **settings, **size), examples)
    gradients = []
    for attention in ("sdpa", "varlen"):
        name = attention_implementation(attention, "cuda")
        model = make_model("llama", name, **settings, **size).cuda()
        packed = PackedLoss(model)
        with torch.autocast("cuda", torch.bfloat16):
            accumulated_loss(packed, examples)
        gradients.append(gradient(model).cpu())
    error = distance(gradients[0], expected)
    assert 1e-3 < error < 0.1
    assert distance(gradients[1], expected) <= 1.5 * error
