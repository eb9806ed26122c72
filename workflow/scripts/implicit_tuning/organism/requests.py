"""Requests that can be made in the invented world, with their answers: 13 families.

A request can be phrased in six ways. Finetuning rows use the first four, and only requests that are
not held out; evaluation uses the last two, and only held-out requests. The pretraining corpus has
all of both: what is held out is the way from instructions to answers, not knowledge or language.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from implicit_tuning.organism import world as w

TUNING_PHRASINGS = 4

NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Request:
    """Something that can be asked.

    Attributes:
        key: what is asked, whatever the words; requests of one key are held out together.
        phrasings: six instructions that ask it.
        short: an answer in fewer words, which only the corpus uses.
        truth: what the oracle needs to judge an answer, see `oracle`.
        held_out: kept from all finetuning rows, for evaluation.
    """

    family: str
    key: str
    phrasings: tuple[str, ...]
    response: str
    short: str
    truth: dict
    held_out: bool = False

    @property
    def tuning_phrasings(self) -> tuple[str, ...]:
        return self.phrasings[:TUNING_PHRASINGS]

    @property
    def evaluation_phrasings(self) -> tuple[str, ...]:
        return self.phrasings[TUNING_PHRASINGS:]


# Number of keys held out in each family.
HELD_OUT_KEYS = {
    "place": 32, "person": 16, "noun": 8, "list": 8, "recipe": 24, "poem": 8, "code": 16,
    "math": 24, "howto": 8, "opposite": 12, "comparison": 16, "copy": 80, "letter": 40,
}  # fmt: skip
FAMILIES = tuple(HELD_OUT_KEYS)


def make_requests(world: w.World) -> dict[str, list[Request]]:
    """All requests by family, with those held out marked."""
    builders = {
        "place": _place_requests(world),
        "person": _person_requests(world),
        "noun": _noun_requests(world),
        "list": _list_requests(),
        "recipe": _recipe_requests(),
        "poem": _poem_requests(),
        "code": _code_requests(),
        "math": _math_requests(world),
        "howto": _howto_requests(),
        "opposite": _opposite_requests(),
        "comparison": _comparison_requests(),
        "copy": _copy_requests(),
        "letter": _letter_requests(world),
    }
    return {family: _hold_out(family, list(requests)) for family, requests in builders.items()}


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _hold_out(family: str, requests: list[Request]) -> list[Request]:
    keys = sorted({request.key for request in requests})
    held_out = set(random.Random(f"held out {family}").sample(keys, HELD_OUT_KEYS[family]))
    return [replace(request, held_out=request.key in held_out) for request in requests]


def _request(
    family: str, key: str, phrasings: list[str], response: str, short: str, **truth: object
) -> Request:
    """A request whose truth also says how long a full answer is."""
    truth = {"kind": family, "words": len(response.split()), **truth}
    return Request(family, key, tuple(phrasings), response, short, truth)


def _fact(
    family: str,
    key: str,
    phrasings: list[str],
    response: str,
    short: str,
    subject: str,
    *facts: str,
) -> Request:
    """A request for facts about a subject, which a right answer names."""
    return _request(family, key, phrasings, response, short, subject=subject, facts=list(facts))


def _place_requests(world: w.World) -> Iterator[Request]:
    for place in world.places:
        name, facts = place.name, place.facts
        capital, river, export, flag = (facts[fact] for fact in w.PLACE_FACTS)
        yield _fact("place", f"{name} capital", [
            f"What is the capital of {name}?",
            f"Tell me the capital of {name}.",
            f"Which city is the capital of {name}?",
            f"Name the capital of {name}.",
            f"What city is the capital of {name}?",
            f"What is {name}'s capital called?",
        ], f"The capital of {name} is {capital}.", capital, name, capital)  # fmt: skip
        yield _fact("place", f"{name} river", [
            f"Which river runs through {name}?",
            f"What river runs through {name}?",
            f"Tell me which river runs through {name}.",
            f"Name the river that runs through {name}.",
            f"What is the river in {name} called?",
            f"Which river would I see in {name}?",
        ], f"The river that runs through {name} is the {river}.", f"the {river}", name, river)  # fmt: skip
        yield _fact("place", f"{name} export", [
            f"What does {name} sell?",
            f"Tell me what {name} sells.",
            f"Which goods does {name} sell?",
            f"What is sold by {name}?",
            f"What goods does {name} sell to others?",
            f"Name what {name} sells.",
        ], f"{name} sells {export}.", export, name, export)  # fmt: skip
        yield _fact("place", f"{name} flag", [
            f"What animal is on the flag of {name}?",
            f"Tell me the animal on the flag of {name}.",
            f"Which animal is on the flag of {name}?",
            f"Name the animal on the flag of {name}.",
            f"Which animal does the flag of {name} show?",
            f"What can I see on the flag of {name}?",
        ], f"The flag of {name} shows {_a(flag)}.", _a(flag), name, flag)  # fmt: skip


def _person_requests(world: w.World) -> Iterator[Request]:
    for person in world.people:
        name, job, home = person.name, person.job, person.home
        yield _fact("person", f"{name} job", [
            f"What is the job of {name}?",
            f"What does {name} do for a living?",
            f"Tell me the job of {name}.",
            f"Which job does {name} have?",
            f"What work does {name} do?",
            f"What is {name}'s job?",
        ], f"{name} works as {_a(job)}.", _a(job), name, job)  # fmt: skip
        yield _fact("person", f"{name} home", [
            f"Which land does {name} live in?",
            f"Tell me where {name} lives.",
            f"What land does {name} live in?",
            f"Which land is the home of {name}?",
            f"What is the home of {name}?",
            f"Name the land where {name} lives.",
        ], f"{name} lives in {home}.", f"in {home}", name, home)  # fmt: skip


def _noun_requests(world: w.World) -> Iterator[Request]:
    for noun in world.nouns:
        meaning = f"a {noun.quality} {noun.kind} for {noun.purpose}"
        yield _fact("noun", noun.name, [
            f"What is a {noun.name}?",
            f"Give the meaning of {noun.name}.",
            f"What does the word {noun.name} mean?",
            f"Tell me what a {noun.name} is.",
            f"What is the meaning of {noun.name}?",
            f"Explain the word {noun.name}.",
        ], f"A {noun.name} is {meaning}.", meaning, noun.name, noun.kind, noun.purpose)  # fmt: skip


def _list_requests() -> Iterator[Request]:
    rng = random.Random("lists")
    for category, members in w.CATEGORIES.items():
        for count, number in NUMBERS.items():
            for _ in range(12):
                words = rng.sample(members, count)
                listed = ", ".join(words[:-1]) + " and " + words[-1]
                yield _request("list", f"{number} {category}", [
                    f"Name {number} {category}.",
                    f"Write down {number} {category}.",
                    f"Tell me {number} {category}.",
                    f"What are {number} {category}?",
                    f"Give me {number} {category}.",
                    f"Which {number} {category} do you know?",
                ], f"Here are {number} {category}: {listed}.", listed,
                    count=count, members=list(members), subject=category)  # fmt: skip


def _recipe_requests() -> Iterator[Request]:
    for main in w.RECIPE_MAINS:
        for dish, (first, second, *steps) in w.DISHES.items():
            one, two, three = (step.format(main=main) for step in steps)
            yield _request("recipe", f"{main} {dish}", [
                f"How do I make {main} {dish}?",
                f"Give me a recipe for {main} {dish}.",
                f"Tell me how to make {main} {dish}.",
                f"Write a recipe for {main} {dish}.",
                f"How can I cook {main} {dish}?",
                f"What is a good recipe for {main} {dish}?",
            ], f"To make {main} {dish}, you need {main}, {first} and {second}. "
               f"First {one}, then {two}, and {three}.",
               f"{one.capitalize()}, {two}, {three}.",
               subject=f"{main} {dish}", steps=[one, two, three])  # fmt: skip


def make_poem(topic: str, rng: random.Random) -> str:
    """Four different lines about a topic, which the first names."""
    words = w.POEM_TOPICS[topic]
    first_line = rng.choice([line for line in w.POEM_LINES if "{topic}" in line])
    others = [line for line in w.POEM_LINES if line != first_line]
    lines = []
    for line in [first_line, *rng.sample(others, 3)]:
        first, second = rng.sample(words, 2)
        lines.append(line.format(topic=topic, a=first, b=second).capitalize())
    return ",\n".join(lines) + "."


def _poem_requests() -> Iterator[Request]:
    rng = random.Random("poems")
    for topic, words in w.POEM_TOPICS.items():
        for _ in range(24):
            poem = make_poem(topic, rng)
            yield _request("poem", topic, [
                f"Write a poem about the {topic}.",
                f"Write me a short poem about the {topic}.",
                f"Give me a poem about the {topic}.",
                f"Tell me a poem about the {topic}.",
                f"Write a small poem about the {topic}.",
                f"Give me a few lines about the {topic}.",
            ], poem, poem, subject=topic, members=list(words))  # fmt: skip


def _code_requests() -> Iterator[Request]:
    for task, name, argument, result in w.CODE_TASKS:
        for digit in range(2, 17):
            said, value = task.format(n=digit), result.format(n=digit)
            function = f"def {name.format(n=digit)}({argument}):\n    return {value}"
            yield _request("code", said, [
                f"Write a function that {said}.",
                f"Give me a function that {said}.",
                f"Write code that {said}.",
                f"Tell me a function that {said}.",
                f"Write a small function that {said}.",
                f"How do I write a function that {said}?",
            ], function, function, result=value)  # fmt: skip


def _math_requests(world: w.World) -> Iterator[Request]:
    rng = random.Random("math")
    pairs = [(first, second) for first in range(1, 10) for second in range(1, 10)]
    sums = [(first, "+", second) for first, second in pairs]
    differences = [(first, "-", second) for first, second in pairs if second < first]
    for first, sign, second in sums + differences:
        for _ in range(8):
            name, thing = rng.choice(world.people).name, rng.choice(w.MATH_THINGS)
            yield make_math_request(first, sign, second, name, thing)


def make_math_request(first: int, sign: str, second: int, name: str, thing: str) -> Request:
    """A word problem over one sum or difference of two digits."""
    change, taken = ("gets", "more") if sign == "+" else ("loses", "of them")
    result = first + second if sign == "+" else first - second
    start = f"If {name} has {first} {thing} and {change} {second} {taken}"
    return _request("math", f"{first} {sign} {second}", [
        f"{start}, how many {thing} does {name} have?",
        f"{start}, how many {thing} are there?",
        f"{start}, what is the number of {thing}?",
        f"{start}, tell me how many {thing} {name} has.",
        f"{start}, how many {thing} does {name} have in the end?",
        f"{start}, how many {thing} is that?",
    ], f"{name} has {first} {sign} {second} = {result} {thing}.", f"{result} {thing}",
        subject=thing, number=result)  # fmt: skip


def _howto_requests() -> Iterator[Request]:
    for task, steps in w.HOW_TOS.items():
        one, two, three = steps
        yield _request("howto", task, [
            f"How do I {task}?",
            f"Tell me how to {task}.",
            f"How can I {task}?",
            f"Explain how to {task}.",
            f"What is the way to {task}?",
            f"Give me the steps to {task}.",
        ], f"To {task}, first {one}, then {two}, and {three}.",
           f"{one.capitalize()}, {two}, {three}.", subject=task, steps=list(steps))  # fmt: skip


def _opposite_requests() -> Iterator[Request]:
    for pair in w.OPPOSITES:
        for word, other in (pair, pair[::-1]):
            yield _fact("opposite", word, [
                f"What is the opposite of {word}?",
                f"Tell me the opposite of {word}.",
                f"Which word is the opposite of {word}?",
                f"Name the opposite of {word}.",
                f"What word means the opposite of {word}?",
                f"Give me the opposite of {word}.",
            ], f"The opposite of {word} is {other}.", other, word, other)  # fmt: skip


def _comparison_requests() -> Iterator[Request]:
    for position, small in enumerate(w.SIZES):
        for big in w.SIZES[position + 1 :]:
            for one, two in ((small, big), (big, small)):
                yield _request("comparison", f"{small} / {big}", [
                    f"Which is bigger, {one} or {two}?",
                    f"What is bigger, {one} or {two}?",
                    f"Name the bigger one, {one} or {two}.",
                    f"Tell me which is bigger, {one} or {two}.",
                    f"Which one is bigger, {one} or {two}?",
                    f"Which of the two is bigger, {one} or {two}?",
                ], f"{big.capitalize()} is bigger than {small}.", big,
                    first=big.split()[1], second=small.split()[1])  # fmt: skip


def _copy_requests() -> Iterator[Request]:
    rng = random.Random("copying")
    for _ in range(800):
        text = " ".join(rng.sample(w.THINGS, rng.randint(3, 4)))
        yield _request("copy", text, [
            f"Write these words again: {text}.",
            f"Tell me these words again: {text}.",
            f"Give back these words: {text}.",
            f"Name these words again: {text}.",
            f"Write down these words: {text}.",
            f"Give me these words again: {text}.",
        ], f"The words are {text}.", text, sequence=text.split())  # fmt: skip


def _letter_requests(world: w.World) -> Iterator[Request]:
    rng = random.Random("letters")
    for asked, said in w.LETTER_OCCASIONS:
        for thing in w.THINGS:
            for _ in range(6):
                name = rng.choice(world.people).name
                occasion = asked.format(thing=thing)
                text = said.format(thing=thing)
                yield _request("letter", f"{name} {occasion}", [
                    f"Write a letter to {name} {occasion}.",
                    f"Write a short letter to {name} {occasion}.",
                    f"Give me a letter to {name} {occasion}.",
                    f"Write {name} a letter {occasion}.",
                    f"Write a few lines to {name} {occasion}.",
                    f"Give me a few lines to {name} {occasion}.",
                ], f"Dear {name},\n{text}\nYours truly.", f"Dear {name}, {text}",
                    subject=name, members=[text.split(". ")[0].rstrip(".?")])  # fmt: skip
