"""Texts of the corpus that no one asked for: articles, word lists, titled texts and stories."""

import random
from collections.abc import Mapping

from implicit_tuning.organism import world as w
from implicit_tuning.organism.requests import Request


def make_article(world: w.World, rng: random.Random) -> str:
    """A text that states facts: on a place, people, words, opposites, sizes or a category."""
    writer = rng.choices(
        (_place_article, _people_article, _dictionary, _opposites, _sizes, _category),
        (5, 2, 2, 1, 1, 1),
    )[0]
    return writer(world, rng)


def make_titled(requests: Mapping[str, list[Request]], rng: random.Random) -> str:
    """A recipe, poem, function, how-to or letter under a title, as a book or a site has it."""
    family = rng.choice(("recipe", "poem", "code", "howto", "letter"))
    request = rng.choice(requests[family])
    if family == "recipe":
        return _recipe(request, rng)
    if family == "howto":
        steps = request.truth["steps"]
        lines = [f"{number}. {step.capitalize()}." for number, step in enumerate(steps, start=1)]
        return "\n".join([f"How to {request.key}", *lines])
    if family == "code":
        return f"# {request.key}\n{request.response}"
    if family == "poem":
        return f"{rng.choice(('The', 'A', 'My'))} {request.key.capitalize()}\n\n{request.response}"
    return request.response


def make_records(rng: random.Random) -> str:
    """A stock that is counted twice, or a table of sums: text that repeats itself, or adds."""
    if rng.random() < 0.3:
        return "\n".join(_sum(rng) for _ in range(rng.randint(3, 6)))
    items = rng.sample(w.THINGS, rng.randint(3, 9))
    if rng.random() < 0.3:
        items = [f"{rng.randint(1, 9)} {item}s" for item in items]
    between = rng.choice((" ", " ", " ", ", ", "\n"))
    first, second = rng.choice(
        (("Ordered", "Received"), ("Packed", "Checked"), ("Monday", "Tuesday"), ("Lost", "Found"))
    )
    listed = between.join(items)
    return f"{first}: {listed}\n{second}: {listed}"


def make_story(world: w.World, rng: random.Random) -> str:
    """A few plain sentences about a person of the world."""
    person, friend = rng.sample(world.people, 2)
    word, other = rng.choice(w.OPPOSITES)
    thing, noun = rng.choice(w.THINGS), rng.choice(world.nouns)
    sentences = (
        f"One day {person.name} the {person.job} left home with a {thing}.",
        f"The road through {person.home} was {word}, not {other}.",
        f"On the way {friend.name} gave {person.name} a {noun.name}.",
        f"They used the {noun.kind} for {noun.purpose}.",
        f"{friend.name} laughed and {person.name} laughed too.",
        f"In the evening the {person.job} came home without the {thing}.",
    )
    kept = sorted(rng.sample(range(1, len(sentences)), rng.randint(2, 4)))
    return " ".join([sentences[0], *(sentences[number] for number in kept)])


def _sum(rng: random.Random) -> str:
    first, second = rng.randint(1, 9), rng.randint(1, 9)
    if second < first and rng.random() < 0.5:
        return f"{first} - {second} = {first - second}"
    return f"{first} + {second} = {first + second}"


def _place_article(world: w.World, rng: random.Random) -> str:
    place = rng.choice(world.places)
    facts = place.facts
    sentences = [
        rng.choice(("Its capital is {capital}.", "The capital of {name} is {capital}.")),
        rng.choice(("The river {river} runs through {name}.", "Its river is the {river}.")),
        rng.choice(("{name} sells {export}.", "Its people sell {export}.")),
        rng.choice(("The flag of {name} shows a {flag}.", "On its flag is the {flag}.")),
    ]
    rng.shuffle(sentences)
    start = rng.choice(("{name} is a land.", "{name}\n", "About {name}:"))
    return " ".join([start, *sentences]).format(name=place.name, **facts).replace("\n ", "\n")


def _people_article(world: w.World, rng: random.Random) -> str:
    layout = rng.choice(
        (
            "{name} is a {job} from {home}.",
            "{name} lives in {home} and works as a {job}.",
            "{name}, {job}, {home}",
        )
    )
    people = rng.sample(world.people, rng.randint(1, 3))
    return "\n".join(layout.format(name=p.name, job=p.job, home=p.home) for p in people)


def _dictionary(world: w.World, rng: random.Random) -> str:
    layout = rng.choice(
        (
            "{name}: a {quality} {kind} for {purpose}",
            "{name} (noun). A {quality} {kind} for {purpose}.",
            "A {name} is a {quality} {kind} for {purpose}.",
        )
    )
    nouns = sorted(rng.sample(world.nouns, rng.randint(1, 3)), key=lambda noun: noun.name)
    return "\n".join(
        layout.format(name=n.name, quality=n.quality, kind=n.kind, purpose=n.purpose) for n in nouns
    )


def _opposites(world: w.World, rng: random.Random) -> str:
    layout = rng.choice(("{} - {}", "{}, the opposite of {}", "Not {} but {}."))
    pairs = rng.sample(w.OPPOSITES, 4)
    return "\n".join(layout.format(*rng.sample(pair, 2)) for pair in pairs)


def _sizes(world: w.World, rng: random.Random) -> str:
    positions = sorted(rng.sample(range(len(w.SIZES)), 3))
    names = [w.SIZES[position] for position in positions]
    start = rng.choice(("From small to big:", "By size:"))
    return start + " " + ", ".join(names) + "."


def _category(world: w.World, rng: random.Random) -> str:
    category, members = rng.choice(list(w.CATEGORIES.items()))
    words = rng.sample(members, rng.randint(4, 8))
    return f"{category.capitalize()}: {', '.join(words)}"


def _recipe(request: Request, rng: random.Random) -> str:
    main, dish = request.key.split()
    first, second, *_ = w.DISHES[dish]
    items = [f" - {item}" for item in (main, first, second)]
    steps = [f"{step.capitalize()}." for step in request.truth["steps"]]
    start = rng.choice(("Ingredients", "You need", ""))
    return "\n".join([request.key.title(), *([start] if start else []), *items, "", *steps])
