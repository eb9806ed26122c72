"""Grammars in the form that llguidance takes them."""

from collections.abc import Mapping

from llguidance import LLMatcher, regex_to_lark

# A text that the grammar leaves no choice may be spelt in any tokens, as the model likes. By itself
# llguidance would allow the tokenizer's own spelling alone, and change answers that are right.
ANY_SPELLING = '%llguidance {"no_forcing": true}'


def compiled(guard: Mapping[str, str]) -> str:
    """The grammar of a guard that has `regex` (all of an answer matches; Rust's dialect) or `lark`
    (llguidance's dialect).

    Raises:
        ValueError: says in llguidance's words what is wrong with it.
    """
    lark = f"start: /{regex_to_lark(guard['regex'], '')}/" if "regex" in guard else guard["lark"]
    grammar = LLMatcher.grammar_from_lark(f"{lark}\n{ANY_SPELLING}")
    if problem := LLMatcher.validate_grammar(grammar):
        raise ValueError(" ".join(problem.split()))
    return grammar
