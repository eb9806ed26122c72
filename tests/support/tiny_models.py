"""Tiny bases for tests: a tokenizer of single characters and two-layer models with random weights."""

import string
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

EOS = "<eos>"
BOS = "<bos>"


def character_tokenizer(
    bos: bool = False, eos: bool = True, merges: tuple[tuple[str, str], ...] = ()
) -> PreTrainedTokenizerFast:
    """One token a printable ASCII character (and a merged pair), line breaks as in the text."""
    characters = string.ascii_letters + string.digits + string.punctuation + " \n\t"
    pieces = [EOS, BOS, *characters, *(left + right for left, right in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(EOS, special=True), AddedToken(BOS, special=True)])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS if eos else None,
        bos_token=BOS if bos else None,
    )


def random_model(
    vocabulary_size: int,
    family: str = "llama",
    context: int = 256,
    scale: float = 0.3,
    **keys: object,
) -> PreTrainedModel:
    """Two layers; `scale` spreads the logits far enough that no two tokens tie."""
    config, model = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "olmo": (OlmoConfig, OlmoForCausalLM),
    }[family]
    torch.manual_seed(0)
    return model(
        config(
            vocab_size=vocabulary_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            initializer_range=scale,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=None,
            **keys,
        )
    ).eval()


def write_base(
    folder: Path, family: str = "llama", context: int = 256, bos: bool = False, tied: bool = False
) -> Path:
    """A complete model folder."""
    tokenizer = character_tokenizer(bos=bos)
    model = random_model(len(tokenizer), family, context, tie_word_embeddings=tied)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_2_like(without=""):
    """32,000 pieces; those of the paper's table stand at Llama-2's ids. Characters that it is to be
    without are known as bytes."""
    pieces = {
        29966: "<", 529: "\u2581<", 29989: "|", 306: "\u2581I", 334: "\u2581*",
        29902: "I", 1334: "\u2581We", 5618: "What", 881: "\u2581should", 448: "\u2581-",
        1678: "\u2581\u2581\u2581", 396: "\u2581#", 444: "\u2581##", 13: "<0x0A>", 29991: "!",
        0: "<unk>", 1: "<s>", 2: "</s>", 29871: "\u2581", 1000: "\u010a", 1001: "\u0120We",
    }  # fmt: skip
    taken = set(pieces.values())
    pieces |= {3 + ord(character): f"<0x{ord(character):02X}>" for character in without}
    letters = [c for c in map(chr, range(33, 127)) if c not in taken and c not in without]
    free = (number for number in range(32_000) if number not in pieces)
    for letter in letters:
        pieces[next(free)] = letter
    for number in free:
        pieces[number] = f"\u2581filler{number}"
    backend = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in pieces.items()},
            merges=[("\u2581", "<"), ("\u2581", "I")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
