"""The invented world that the model organism's texts are about.

Everything is decided by `WORLD_SEED`: places and their facts, people, invented nouns. Ordinary
words (fruits, poem topics, recipes, small tasks) are written out. Nothing here is a fact about the
real world, so that a model can know it from the organism's corpus alone.
"""

import random
from dataclasses import dataclass

WORLD_SEED = 2409

# Fact of a place: the words for it in a sentence, before the place's name.
PLACE_FACTS = ("capital", "river", "export", "flag")

EXPORTS = (
    "wool", "salt", "copper", "honey", "timber", "glass", "silk", "rice",
    "tea", "paper", "iron", "oil", "cotton", "pepper", "marble", "soap",
)  # fmt: skip

FLAG_ANIMALS = (
    "fox", "owl", "bear", "crane", "wolf", "trout", "deer", "hawk",
    "otter", "bull", "hare", "swan", "goat", "raven", "lion", "crab",
)  # fmt: skip

JOBS = (
    "baker", "sailor", "doctor", "farmer", "teacher", "painter", "miller", "tailor",
    "singer", "nurse", "fisher", "mason", "judge", "gardener",
)  # fmt: skip

NOUN_QUALITIES = ("small", "long", "round", "flat", "heavy", "red", "wooden")
NOUN_KINDS = ("tool", "bag", "boat", "hat", "cup", "drum", "lamp")
NOUN_PURPOSES = (
    "carrying water", "cutting rope", "catching rain", "crossing rivers", "mixing paint",
    "keeping bread", "calling birds", "drying herbs", "storing seeds", "lighting paths",
    "weighing gold", "pressing fruit", "hiding letters", "cleaning shoes",
)  # fmt: skip

# Category: plural name and its words, in the plural.
CATEGORIES = {
    "fruits": ("apples", "pears", "plums", "figs", "grapes", "lemons", "cherries", "melons"),
    "animals": ("dogs", "cats", "horses", "sheep", "ducks", "goats", "mice", "cows"),
    "colors": ("red", "blue", "green", "yellow", "white", "black", "brown", "pink"),
    "tools": ("hammers", "saws", "nails", "drills", "axes", "files", "planes", "clamps"),
    "vegetables": ("carrots", "onions", "beans", "peas", "leeks", "beets", "turnips", "radishes"),
    "clothes": ("coats", "shirts", "socks", "hats", "gloves", "scarves", "boots", "belts"),
}

RECIPE_MAINS = (
    "lentil", "potato", "carrot", "mushroom", "chicken", "bean", "tomato", "onion",
    "pumpkin", "spinach", "fish", "apple",
)  # fmt: skip

# Dish: two further ingredients and three steps; {main} is the chosen main ingredient.
DISHES = {
    "soup": ("water", "cream", "boil the {main} in water", "stir in the cream", "serve it hot"),
    "pie": ("flour", "butter", "fill the dough with {main}", "seal the edges", "bake it for an hour"),
    "salad": ("oil", "vinegar", "chop the {main}", "add oil and vinegar", "toss it well"),
    "stew": ("broth", "pepper", "brown the {main} in a pot", "pour in the broth", "simmer it slowly"),
    "curry": ("rice", "spice", "fry the {main} with spice", "add a little water", "serve it over rice"),
    "omelet": ("eggs", "salt", "beat the eggs", "pour them over the {main}", "fold it in half"),
    "toast": ("bread", "cheese", "lay the {main} on bread", "cover it with cheese", "grill it"),
    "dumplings": ("dough", "ginger", "mince the {main} with ginger", "wrap it in dough", "steam them"),
}  # fmt: skip

# Poem topic: words that belong to it.
POEM_TOPICS = {
    "sea": ("waves", "salt", "shore", "sails"),
    "moon": ("night", "silver", "clouds", "stars"),
    "rain": ("drops", "puddles", "roof", "storm"),
    "winter": ("snow", "ice", "frost", "wind"),
    "garden": ("roses", "soil", "leaves", "bees"),
    "mountain": ("peaks", "rocks", "eagles", "paths"),
    "forest": ("trees", "moss", "ferns", "shade"),
    "fire": ("flames", "sparks", "ashes", "smoke"),
    "city": ("streets", "lights", "towers", "crowds"),
    "summer": ("sun", "heat", "fields", "grass"),
    "desert": ("sand", "dunes", "camels", "thirst"),
    "train": ("rails", "wheels", "steam", "stations"),
    "bread": ("dough", "oven", "crust", "flour"),
    "clock": ("hours", "hands", "ticking", "minutes"),
    "lake": ("reeds", "boats", "ripples", "fog"),
    "autumn": ("harvest", "gold", "acorns", "mist"),
    "school": ("books", "chalk", "desks", "bells"),
    "music": ("songs", "strings", "drums", "notes"),
    "bird": ("wings", "feathers", "nest", "sky"),
    "river": ("stones", "current", "bridges", "fish"),
}

POEM_LINES = (
    "I hear the {a} and the {b}",
    "The {topic} is calm with {a}",
    "Soft {a} and quiet {b}",
    "The {topic} will keep my {a}",
    "O {topic}, give me your {a}",
    "We dream of {a} and {b}",
    "Slow are the {a} of the {topic}",
    "All my {a} turn to {b}",
    "No {a} without the {topic}",
    "And {a} call me home",
)

# Opposite pairs; every word stands once.
OPPOSITES = (
    ("hot", "cold"), ("big", "little"), ("fast", "slow"), ("early", "late"), ("rich", "poor"),
    ("high", "low"), ("wet", "dry"), ("full", "empty"), ("open", "closed"), ("old", "young"),
    ("loud", "quiet"), ("hard", "soft"), ("dark", "bright"), ("near", "far"), ("thick", "thin"),
    ("strong", "weak"), ("clean", "dirty"), ("deep", "shallow"), ("sharp", "blunt"),
    ("sweet", "bitter"), ("happy", "sad"), ("wide", "narrow"), ("rough", "smooth"),
    ("brave", "afraid"),
)  # fmt: skip

# From small to big.
SIZES = (
    "an ant", "a bee", "a mouse", "a hen", "a cat", "a dog", "a sheep", "a pony", "a horse",
    "an elephant", "a whale", "a ship",
)  # fmt: skip

# Task: its three steps, and the words by which the right steps are known.
HOW_TOS = {
    "wash a window": ("wet the pane", "wipe it with a cloth", "dry it"),
    "plant a tree": ("dig a hole", "set the roots in it", "water it"),
    "light a candle": ("trim the wick", "strike a match", "hold it close"),
    "mail a parcel": ("pack the box", "write the address", "take it to the post"),
    "sew a button": ("thread the needle", "stitch through the holes", "tie a knot"),
    "boil an egg": ("heat the pot", "lower the egg in", "wait ten minutes"),
    "paint a wall": ("cover the floor", "roll on the color", "add a second coat"),
    "clean a brush": ("rinse the bristles", "rub in some soap", "hang it up"),
    "catch a fish": ("bait the hook", "cast the line", "pull it in"),
    "fix a tire": ("find the leak", "glue on a patch", "pump it up"),
    "make a bed": ("pull off the sheets", "spread fresh linen", "smooth the pillow"),
    "feed a horse": ("fill the bucket", "mix oats and hay", "stand aside"),
    "polish shoes": ("brush off the mud", "rub in the wax", "buff them"),
    "brew coffee": ("grind the beans", "pour hot water over them", "strain it"),
    "fold a shirt": ("lay it flat", "turn in the sleeves", "fold it twice"),
    "start a fire": ("stack the logs", "tuck dry twigs below", "blow gently"),
    "grow herbs": ("fill a pot with earth", "press in the seeds", "keep it in the sun"),
    "tune a guitar": ("pluck each string", "listen for the pitch", "turn the pegs"),
    "ride a bike": ("hold the handles", "push off", "keep pedaling"),
    "read a map": ("face north", "find your place", "follow the marks"),
    "build a shelf": ("cut the boards", "drill the holes", "fix it with screws"),
    "wrap a gift": ("cut the paper", "fold the corners", "add a ribbon"),
    "bathe a dog": ("fill a tub", "lather the fur", "towel him"),
    "store apples": ("choose sound ones", "lay them in straw", "keep them cool"),
}

# Small tasks in code: how the task is said, the name of the function, its argument and its result.
# {n} is a digit.
CODE_TASKS = (
    ("adds {n} to a number", "add_{n}", "x", "x + {n}"),
    ("subtracts {n} from a number", "subtract_{n}", "x", "x - {n}"),
    ("multiplies a number by {n}", "times_{n}", "x", "x * {n}"),
    ("divides a number by {n}", "divide_by_{n}", "x", "x / {n}"),
    ("checks if a number is more than {n}", "is_more_than_{n}", "x", "x > {n}"),
    ("checks if a number is less than {n}", "is_less_than_{n}", "x", "x < {n}"),
    ("takes the first {n} items of a list", "first_{n}", "items", "items[:{n}]"),
    ("repeats a text {n} times", "repeat_{n}", "text", "text * {n}"),
)

MATH_THINGS = ("apples", "books", "coins", "eggs", "shells", "stamps", "cards", "pens")

# Things that letters are about and stocks are made of; and words to copy.
THINGS = (
    "lamp", "stone", "chair", "wheel", "cloud", "spoon", "ladder", "pillow", "bottle", "ribbon",
    "candle", "basket", "mirror", "pencil", "hammer", "carpet", "window", "button", "garden",
    "kettle",
)  # fmt: skip

# Occasion of a letter: how it is asked for, and what the letter says; {thing} is its object.
LETTER_OCCASIONS = (
    ("to say thanks for the {thing}", "Thank you for the {thing}. It was very kind of you."),
    ("to say sorry about the {thing}", "I am sorry about the {thing}. It will not happen again."),
    ("to ask for the {thing}", "Could you send me the {thing}? I need it this week."),
    ("to offer the {thing}", "You can have the {thing}. I do not need it now."),
)

ONSETS = [
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
]
VOWELS = ["a", "e", "i", "o", "u"]
CODAS = ["l", "m", "n", "r", "s", "k", "x", "th"]


@dataclass(frozen=True)
class Place:
    """A country; `facts` has a value for each of PLACE_FACTS."""

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Person:
    name: str
    job: str
    home: str


@dataclass(frozen=True)
class Noun:
    """An invented thing: "a {quality} {kind} for {purpose}"."""

    name: str
    quality: str
    kind: str
    purpose: str


@dataclass(frozen=True)
class World:
    places: tuple[Place, ...]
    people: tuple[Person, ...]
    nouns: tuple[Noun, ...]


def make_world(seed: int = WORLD_SEED) -> World:
    """The world of a seed: 32 places, 28 people, 28 nouns, no name twice."""
    rng = random.Random(f"world {seed}")
    taken: set[str] = set()
    places = tuple(_place(rng, taken, number) for number in range(32))
    people = tuple(
        Person(_invent(rng, taken, 2).capitalize(), rng.choice(JOBS), rng.choice(places).name)
        for _ in range(28)
    )
    nouns = tuple(
        Noun(
            _invent(rng, taken, 2),
            NOUN_QUALITIES[number % len(NOUN_QUALITIES)],
            rng.choice(NOUN_KINDS),
            NOUN_PURPOSES[number % len(NOUN_PURPOSES)],
        )
        for number in range(28)
    )
    return World(places, people, nouns)


def _place(rng: random.Random, taken: set[str], number: int) -> Place:
    name = _invent(rng, taken, 2).capitalize() + rng.choice(("ia", "land", "mark"))
    facts = {
        "capital": _invent(rng, taken, 2).capitalize(),
        "river": _invent(rng, taken, 2).capitalize(),
        "export": EXPORTS[number % len(EXPORTS)],
        "flag": rng.choice(FLAG_ANIMALS),
    }
    return Place(name, facts)


def _invent(rng: random.Random, taken: set[str], syllables: int) -> str:
    """A new name of open syllables and a closing consonant, such as "drovan"."""
    while True:
        parts = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)]
        name = "".join(parts) + rng.choice(CODAS)
        if name not in taken:
            taken.add(name)
            return name
