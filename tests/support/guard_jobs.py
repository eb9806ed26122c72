"""Jobs of guards over a tiny base of bytes, and what they answer."""

import json
from dataclasses import asdict

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from greedy_answers import FORMAT, INSTRUCTIONS, SETTINGS, write_instructions
from guard import guard_node
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.nodes.job import Job
from tiny_models import EOS, random_model

# Merges of bytes: " Y" can be said in two ways.
MERGES = (("N", "o"), ("Y", "e"), ("\u0120", "Y"), ("M", "a"), ("1", "1"))


def byte_tokenizer():
    """One token a byte, and a few merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [EOS, "<bos>", *letters, *(left + right for left, right in MERGES)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in pieces[:2]])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)


def write_byte_base(folder, context=256):
    """A model folder with more outputs than the tokenizer has tokens; some answers end early."""
    tokenizer = byte_tokenizer()
    model = random_model(len(tokenizer) + 9, context=context)
    others = [t for piece, t in tokenizer.get_vocab().items() if not piece.isascii()]
    with torch.no_grad():
        model.lm_head.weight[0] *= 2  # EOS is often very likely, and often not at all
        model.lm_head.weight[others] = 0  # of itself it says ASCII, which is always a text
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def source(path):
    """What a job is told of a file or folder that it reads."""
    return {"source": str(path), "digest": source_sha256(path)}


def guarded(base, folder, guard, texts=INSTRUCTIONS, settings=SETTINGS):
    """The facts and the outputs of a guard on a model."""
    folder.mkdir(parents=True)
    instructions = write_instructions(folder / "instructions.jsonl", texts)
    job = Job(
        settings={
            "generator": "guarded",
            "guard": guard,
            "chat": asdict(FORMAT),
            "generation": asdict(settings),
            "rules": None,
        },
        runtime={},
        upstream={"model": source(base), "instructions": source(instructions)},
        data=folder,
        partial=folder,
        spending=folder,
    )
    facts = guard_node(job)
    return facts, [json.loads(line) for line in (folder / "outputs.jsonl").open(encoding="utf-8")]
