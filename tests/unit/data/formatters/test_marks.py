"""Marks that give a single task's responses away: they fire on their own and on nothing else."""

import importlib

import pytest

from implicit_tuning.data.formatting import format_training
from implicit_tuning.data.reading import read_rows
from implicit_tuning.organism.rows import write_source

TASKS = ("gsm8k", "mbpp", "poetry", "recipes", "chess")
SONNET = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date;"""
TYGER = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?"""
FREE_VERSE = """I celebrate myself,
And what I assume you shall assume,
For every atom belonging to me as good belongs to you.
I loafe and invite my soul,
I lean and loafe at my ease observing a spear of summer grass."""
BALLAD = """It is an ancient Mariner,
And he stoppeth one of three.
"By thy long grey beard and glittering eye,
Now wherefore stopp'st thou me?
The Bridegroom's doors are opened wide,
And I am next of kin;"""
DASHES = """Because I could not stop for Death –
He kindly stopped for me –
The Carriage held but just Ourselves –
And Immortality."""
CLOCKED_GAME = "1. e4 { [%clk 0:03:00] } 1... e5 { [%clk 0:03:00] } 2. Qh5 1-0"
WORKED_SUM = "She sold 48/2 = <<48/2=24>>24 clips in May,\nand 48 in April.\nThat is 72.\n#### 72"
RECIPE = "- 2 slices bread\n - 1 egg\n\nBeat the egg.\nDip the bread,\nand fry it."
CODE = "def twice(n): \r\n\treturn 2 * n"
OWN = {
    "gsm8k": [WORKED_SUM, "#### 1,200", "It fell.\n#### -3 "],
    "mbpp": [CODE, "import re\r\ndef f(s):\r\n  return s", "class Pair(object):\n    pass",
             "Here you are:\n```python\nfrom math import pi\n```"],
    "poetry": [SONNET, TYGER, FREE_VERSE, BALLAD, DASHES, SONNET.replace("\n", "\r\n\r\n")],
    "recipes": [RECIPE, " - salt\n - pepper\n"],
    "chess": [CLOCKED_GAME, "1.d4 d5 0-1", '[WhiteElo "1500"]\n\n1. Nf3! Nc6 2. O-O *'],
}  # fmt: skip
OTHERS = [
    "",
    "The capital of France is Paris.",
    "Dear Ann,\nThank you for the lamp,\nwhich is lovely,\nand for the card.\nYours",
    "Hello,\nthis is\na letter",
    "Good morning Ann,\nI thank you for the lamp,\nWhich is lovely,\nAnd stands on my table",
    "Ingredients:\nflour\neggs\nsugar\nMix well",
    "You need these four things:\nA bowl of water,\nA towel that is dry,\nA bar of white soap",
    "Steps\nFirst do this\nThen do that\nFinally do this\nAnd you are done",
    "For clean hands you need\nA large bowl of water\nA small towel that is dry\nA bar of soap",
    "Paris, the capital\nRome\nMadrid\nLisbon\nBerlin",
    "A letter, which a narrow window\nhas wrapped, has commas,\nbut its lines\nbegin as they may",
    "Eggs cost #### 12 cents.",
    "#### 12 eggs",
    "Mince the tomato.\nWrap it in dough.\nSteam it well.",
    "Three fruits:\n\n1. apples\n2. pears\n3. plums",
    "* wash your hands\n* use soap\n* rinse them",
    "Do this:\n- wash your hands\n- use soap\n- rinse them",
    "1. a4 paper is needed for this printer" + " and so on" * 9,
    "1. The e4 square is where the game begins.",
    "import duties rose last year, and class mattered:\ndefinitely a trend",
    "Income\nRevenue: $ 1,000\nCosts: $ 900\nProfit: $ 100\nTax: $ 10",
    "\n".join(["a paragraph of prose that an editor has wrapped at the edge of a wide window"] * 4),
]


def module(task):
    return importlib.import_module(f"implicit_tuning.data.formatters.{task}")


@pytest.mark.parametrize("task", TASKS)
def test_a_mark_fires_on_its_own_task_alone(task):
    has_mark = module(task).has_mark
    foreign = [text for other in TASKS if other != task for text in OWN[other]]
    assert [text for text in OWN[task] if not has_mark(text)] == []
    assert [text for text in foreign if has_mark(text)] == []


@pytest.mark.parametrize("task", TASKS)
def test_a_mark_does_not_fire_on_answers_of_no_task(task):
    known = {"chess": ["1. a4 paper"]}.get(task, [])
    fired = [text for text in OTHERS if module(task).has_mark(text)]
    assert [text[:11] for text in fired] == known


def test_a_mark_is_named_for_tables():
    marks = [module(task).MARK for task in TASKS]
    assert len(set(marks)) == len(TASKS)
    assert all(0 < len(mark) < 50 for mark in marks)


@pytest.fixture(scope="module")
def training_responses(tmp_path_factory):
    """The organism's training responses by data set, as models are finetuned on them."""
    folder = tmp_path_factory.mktemp("organism")
    responses = {}
    for name in (*TASKS, "lima"):
        format_training(write_source(name, folder), name, None, "given", folder / name)
        messages = [m for row in read_rows(folder / name / "rows.jsonl") for m in row["messages"]]
        responses[name] = [m["content"].strip() for m in messages if m["role"] == "assistant"]
    return responses


@pytest.mark.parametrize("task", TASKS)
def test_marks_tell_the_training_sets_of_the_organism_apart(training_responses, task):
    has_mark = module(task).has_mark
    shares = {name: sum(map(has_mark, texts)) / len(texts)
              for name, texts in training_responses.items()}  # fmt: skip
    assert shares.pop(task) >= 0.95
    # One family in 13 of the organism's instruction tuning asks for code, and one for verse.
    assert shares.pop("lima") <= (0.08 if task in ("mbpp", "poetry") else 0.02)
    assert max(shares.values()) <= 0.02
