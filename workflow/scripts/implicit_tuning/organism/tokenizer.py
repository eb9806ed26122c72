"""The organism's tokenizers: byte-level BPE with single digits, as Llama-2 and OLMo differ in BOS."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def train_tokenizer(
    documents: Iterable[str], vocabulary: int, architecture: str, context: int
) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocabulary` pieces.

    Architecture "llama" has `<s>`, puts it in front of each text and ends texts with `</s>`; "olmo"
    has only `<|endoftext|>` and puts nothing in front. `context` is the longest text of the model,
    in tokens.
    """
    has_bos = architecture == "llama"
    bos, eos = ("<s>", "</s>") if has_bos else (None, "<|endoftext|>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[bos, eos] if has_bos else [eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if bos is not None:
        special = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=special
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
