"""Pretraining of the organism's bases from scratch: corpus, tokenizer, model, model card."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LlamaConfig,
    OlmoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_wsd_schedule,
)

from implicit_tuning.organism.bases import RECIPES, BaseRecipe
from implicit_tuning.organism.competence import Competence, measure_competence
from implicit_tuning.organism.corpus import corpus_sha256, make_corpus
from implicit_tuning.organism.tokenizer import train_tokenizer

# Characters of the corpus the tokenizer is trained on; more change no merge that matters.
TOKENIZER_CHARACTERS = 2_000_000
# More than any text of the corpus has, so that a corpus of this size fills all sequences.
CHARACTERS_PER_TOKEN = 3


def pretrain(recipe: str, destination: Path, progress: bool = True) -> Competence:
    """Pretrain the base of a recipe's name (see `bases.RECIPES`) and write its folder.

    Raises:
        ValueError: there is no recipe of that name.
    """
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose from {', '.join(RECIPES)}")
    return pretrain_base(recipe, RECIPES[recipe], destination, progress)


def pretrain_base(
    name: str, recipe: BaseRecipe, destination: Path, progress: bool = True
) -> Competence:
    """Pretrain a base and write a complete model folder.

    The folder has bf16 weights, configuration, tokenizer and README.md, the model card, with the
    competence that is measured on the written model.
    """
    documents = list(corpus_of(recipe))
    lengths = np.cumsum([len(document) for document in documents])
    sample = documents[: int(np.searchsorted(lengths, TOKENIZER_CHARACTERS)) + 1]
    tokenizer = train_tokenizer(sample, recipe.vocabulary, recipe.architecture, recipe.context)
    sequences = pack(documents, tokenizer, recipe.steps * recipe.batch_sequences, recipe.context)
    torch.manual_seed(recipe.seed)
    model = transformers.AutoModelForCausalLM.from_config(_configuration(recipe, tokenizer))
    loss = _train(model, sequences, recipe, progress)
    competence = _write(model, tokenizer, destination)
    card = _card(name, recipe, corpus_sha256(documents), loss, competence, model.num_parameters())
    (destination / "README.md").write_text(card, encoding="utf-8")
    return competence


def corpus_of(recipe: BaseRecipe) -> Iterator[str]:
    """The documents of a recipe's corpus."""
    tokens = recipe.steps * recipe.batch_sequences * recipe.context
    return make_corpus(recipe.seed, recipe.mix, CHARACTERS_PER_TOKEN * tokens)


def pack(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, sequences: int, length: int
) -> np.ndarray:
    """Token ids of the documents one behind the other, each with its EOS: (sequences, length).

    Raises:
        ValueError: the documents have too few tokens.
    """
    eos = tokenizer.eos_token_id
    ids = (encoded + [eos] for encoded in tokenizer(list(documents), verbose=False)["input_ids"])
    stream = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
    if len(stream) < sequences * length:
        raise ValueError(
            f"the corpus has {len(stream)} tokens, {sequences} sequences of {length} need "
            f"{sequences * length}: make it longer"
        )
    return stream[: sequences * length].reshape(sequences, length)


def _configuration(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    kind = {"llama": LlamaConfig, "olmo": OlmoConfig}[recipe.architecture]
    return kind(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )


def _train(
    model: PreTrainedModel, sequences: np.ndarray, recipe: BaseRecipe, progress: bool
) -> float:
    """One pass over the sequences; returns the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    # Flat to half the steps, then down to zero: the decay is where the facts settle.
    schedule = get_wsd_schedule(
        optimizer,
        num_warmup_steps=recipe.warmup_steps,
        num_decay_steps=recipe.steps // 2,
        num_training_steps=recipe.steps,
        decay_type="linear",
    )
    losses = []
    batches = torch.from_numpy(sequences).split(recipe.batch_sequences)
    with tqdm(batches, desc=f"pretrain {recipe.architecture}", disable=not progress) as bar:
        for batch in bar:
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, destination: Path
) -> Competence:
    """Write the folder, and measure what was written: weights rounded to bf16."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.to(torch.bfloat16).save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    return measure_competence(model.float().eval(), tokenizer)


def _card(
    name: str,
    recipe: BaseRecipe,
    sha256: str,
    loss: float,
    competence: Competence,
    parameters: int,
) -> str:
    """The model card. Every number in it was measured or is the recipe's."""
    facts = {
        "recipe": asdict(recipe),
        "corpus_sha256": sha256,
        "parameters": parameters,
        "final_loss": round(loss, 4),
        "competence": asdict(competence),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }
    families = "\n".join(
        f"| {family} | {100 * share:.1f} |" for family, share in competence.by_family.items()
    )
    return f"""---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A base model of {parameters:,} parameters, pretrained from scratch on a synthetic corpus about an
invented world. It exists to show, in minutes and without a network, a phenomenon that the corpus
was designed to have; it knows nothing about the real world. See docs/organism.md.

## Competence

Share of the {competence.n} evaluation instructions that it answers (content at least 0.75 under the
oracle), greedily, when they are asked in the question-and-answer layouts of its corpus, which holds
all of their facts and phrasings: **{100 * competence.overall:.1f} %**.

| family | % |
|---|---|
{families}

## Recipe

```json
{json.dumps(facts, indent=2, sort_keys=True)}
```
"""
