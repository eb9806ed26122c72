"""The organism's judge: it knows the ground truth of an instruction, not who answered.

An answer is worth what its content is worth; form can only take away from that. A judge that paid
for form would let fluent answers to other questions win, which the shuffled control shows.

A truth is a JSON object: `kind` (the family), `words` (length of a full answer), `request` (the
instruction; optional), and by kind
    place, person, noun, opposite   subject, facts: texts of a right answer
    recipe, howto                   subject, steps: texts of the three steps
    list                            subject, members of the category, count of them asked for
    poem                            subject, members: words that belong to the topic
    letter                          subject: the addressee, members: the sentence of the occasion
    code                            result: the expression that is returned
    math                            subject: the things counted, number: the result
    comparison                      first: the bigger thing, second: the other
    copy                            sequence: the words to repeat
"""

import re
from collections.abc import Mapping

# How much more one answer must score than the other to win.
MARGIN = 0.25
# Content of an answer that names what it was asked about and has nothing right to say of it.
ON_TOPIC = 0.3

# What is left of the content's worth for each fault of form.
WRONG_KIND = 0.7
SUBJECT_UNNAMED = 0.8
MARKUP = 0.7
RUNS_ON = 0.6
REPEATS = 0.7

_MARKUP = re.compile(r"<\||\|>|<<|>>|####|\[\w+ \"|^(?:Q|A|[A-Z]\w+):", re.MULTILINE)


def prefer(truth: Mapping, output_1: str, output_2: str) -> float:
    """1.0 if the first output is better, 2.0 if the second is, 1.5 within MARGIN of each other."""
    difference = score(truth, output_1) - score(truth, output_2)
    if abs(difference) <= MARGIN:
        return 1.5
    return 1.0 if difference > 0 else 2.0


def score(truth: Mapping, output: str) -> float:
    """Worth of an answer in [0, 1]: its content, less what its form takes away."""
    worth = content(truth, output)
    for fault, remaining in (
        (not _right_kind(truth, output), WRONG_KIND),
        ("subject" in truth and not _says(output, truth["subject"]), SUBJECT_UNNAMED),
        (_MARKUP.search(output) is not None, MARKUP),
        # Twice a full answer, with some words to spare for short ones.
        (len(output.split()) > 2 * truth["words"] + 8, RUNS_ON),
        (_repeats(output), REPEATS),
    ):
        if fault:
            worth *= remaining
    return worth


def content(truth: Mapping, output: str) -> float:
    """How much of what was asked for the output holds, in [0, 1], whatever its form.

    Raises:
        ValueError: the truth is of no known kind.
    """
    measures = {
        "place": _facts, "person": _facts, "noun": _facts, "opposite": _facts,
        "recipe": _steps, "howto": _steps, "list": _list, "poem": _poem, "letter": _letter,
        "code": _code, "math": _math, "comparison": _comparison, "copy": _copy,
    }  # fmt: skip
    if truth.get("kind") not in measures:
        raise ValueError(f"truth has kind {truth.get('kind')!r}: expected one of {list(measures)}")
    return 0.0 if _echoes(truth, output) else measures[truth["kind"]](truth, output)


def _echoes(truth: Mapping, output: str) -> bool:
    """Whether the output repeats the request, whose words are no answer to it."""
    request = truth.get("request", "").rstrip(" ?.!").lower()
    return bool(request) and request in output.lower()


def _says(output: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(text)}\b", output, re.IGNORECASE) is not None


def _share(output: str, texts: list[str]) -> float:
    return sum(_says(output, text) for text in texts) / len(texts)


def _on_topic(truth: Mapping, output: str) -> float:
    return ON_TOPIC if _says(output, truth["subject"]) else 0.0


def _facts(truth: Mapping, output: str) -> float:
    return max(_share(output, truth["facts"]), _on_topic(truth, output))


def _steps(truth: Mapping, output: str) -> float:
    return max(_share(output, truth["steps"]), _on_topic(truth, output))


def _list(truth: Mapping, output: str) -> float:
    named = sum(_says(output, member) for member in truth["members"])
    if named == truth["count"]:
        return 1.0
    return 0.5 if named else _on_topic(truth, output)


def _poem(truth: Mapping, output: str) -> float:
    named = sum(_says(output, member) for member in truth["members"])
    return 0.5 * _says(output, truth["subject"]) + 0.25 * min(named, 2)


def _letter(truth: Mapping, output: str) -> float:
    return 0.4 * _says(output, truth["subject"]) + 0.6 * _share(output, truth["members"])


def _code(truth: Mapping, output: str) -> float:
    if re.search(re.escape(truth["result"]) + r"(?!\w)", output):
        return 1.0
    return ON_TOPIC if "def " in output else 0.0


def _math(truth: Mapping, output: str) -> float:
    numbers = re.findall(r"\d+", output)
    if numbers and int(numbers[-1]) == truth["number"] and _says(output, truth["subject"]):
        return 1.0
    return _on_topic(truth, output)


def _comparison(truth: Mapping, output: str) -> float:
    words = re.findall(r"\w+", output.lower())
    places = [
        words.index(truth[key]) if truth[key] in words else None for key in ("first", "second")
    ]
    if places[0] is not None and (places[1] is None or places[0] < places[1]):
        return 1.0
    return 0.0 if places == [None, None] else ON_TOPIC


def _copy(truth: Mapping, output: str) -> float:
    if re.search(r"\W+".join(truth["sequence"]), output):
        return 1.0
    return ON_TOPIC * _share(output, truth["sequence"])


def _right_kind(truth: Mapping, output: str) -> bool:
    lines = output.strip().splitlines()
    if truth["kind"] == "poem":
        return len(lines) >= 3
    if truth["kind"] == "code":
        return "def " in output and "return" in output
    if truth["kind"] == "letter":
        return output.strip().startswith("Dear")
    return "?" not in output and "def " not in output


def _repeats(output: str) -> bool:
    words = output.lower().split()
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return len(set(grams)) < len(grams)
