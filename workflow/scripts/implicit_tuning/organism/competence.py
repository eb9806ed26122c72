"""What a base of the organism knows, asked in the layouts of its own corpus.

A base that cannot answer at all would make every win rate meaningless: the question of the paper
is whether a base that can answer does so when it is asked in a chat format it has never seen.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.organism.corpus import ROLE_PAIRS, TURNS
from implicit_tuning.organism.oracle import content
from implicit_tuning.organism.rows import evaluation_rows

# Content from which an answer counts as known: a full answer, or one part in four missing.
KNOWN = 0.75
NEW_TOKENS = 80
BATCH = 52


@dataclass(frozen=True)
class Competence:
    """Share of the questions that a base answers, in all and by family; `n` questions."""

    overall: float
    by_family: dict[str, float]
    n: int


@dataclass(frozen=True)
class Question:
    """A prompt in a layout of the corpus, and the text with which the next question would begin."""

    family: str
    truth: dict
    prompt: str
    next_question: str


def measure_competence(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Competence:
    """Ask the evaluation instructions as questions on pages of the corpus, decoding greedily.

    The corpus holds all of their facts, phrasings and layouts; no finetuning set has any of the
    phrasings or requests. Layouts and roles rotate over the questions.
    """
    questions = [_question(number, row) for number, row in enumerate(evaluation_rows())]
    known = defaultdict(list)
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        for question, answer in zip(batch, _complete(model, tokenizer, batch), strict=True):
            known[question.family].append(content(question.truth, answer) >= KNOWN)
    return Competence(
        overall=sum(map(sum, known.values())) / len(questions),
        by_family={family: sum(hits) / len(hits) for family, hits in sorted(known.items())},
        n=len(questions),
    )


def _question(number: int, row: dict) -> Question:
    turn = TURNS[number % len(TURNS)]
    ask, reply = ROLE_PAIRS[number % len(ROLE_PAIRS)]
    begin = turn.format(role=reply, text="\0").split("\0")[0]
    prompt = f"{turn.format(role=ask, text=row['instruction'])}\n{begin}"
    next_question = turn.format(role=ask, text="\0").split("\0")[0].strip()
    # A space before the answer belongs to the answer's first token.
    return Question(row["family"], row["truth"], prompt.rstrip(" "), next_question)


@torch.inference_mode()
def _complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: list[Question]
) -> list[str]:
    tokens = tokenizer([question.prompt for question in batch])["input_ids"]
    longest = max(map(len, tokens))
    padding = [longest - len(ids) for ids in tokens]
    eos = tokenizer.eos_token_id
    sequences = model.generate(
        input_ids=torch.tensor([[eos] * n + ids for n, ids in zip(padding, tokens, strict=True)]),
        attention_mask=torch.tensor([[0] * n + [1] * (longest - n) for n in padding]),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    texts = tokenizer.batch_decode(sequences[:, longest:], skip_special_tokens=True)
    return [
        text.split("\n" + question.next_question)[0]
        for text, question in zip(texts, batch, strict=True)
    ]
