"""Tiny bases for tests: a tokenizer of single characters and two-layer models with random weights."""

import string
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
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
    vocabulary_size: int, family: str = "llama", context: int = 256, scale: float = 0.3
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
        )
    ).eval()


def write_base(folder: Path, family: str = "llama", context: int = 256, bos: bool = False) -> Path:
    """A complete model folder."""
    tokenizer = character_tokenizer(bos=bos)
    random_model(len(tokenizer), family, context).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
