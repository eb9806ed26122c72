"""Training and evaluation sets of the organism, as files in the schemas of the real data sets.

The formatters for the real data read these files unchanged (paper, data table): LIMA, GSM8K, MBPP,
the poems, the recipes, the chess games and Stanford Alpaca, and two sets of instructions with ground
truth, for evaluation and for choosing epochs. No training row has a phrasing or a request that the
evaluation set has; the validation set has the phrasings of the one and the requests of the other.
"""

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from implicit_tuning.organism.games import make_game
from implicit_tuning.organism.requests import Request, make_poem, make_requests
from implicit_tuning.organism.world import DISHES, make_world

TRAINING_ROWS = 400
# Rows of the LIMA-like set that hold two exchanges; LIMA has 30 such rows in 1,030.
MULTI_TURN_ROWS = 12
EVALUATION_ROWS_PER_FAMILY = 16
# Rows of a set that evaluates one task, where its family has so many requests.
TASK_EVALUATION_ROWS = 64
# The paper validates on 56 instructions; 13 families.
VALIDATION_ROWS_PER_FAMILY = 4

POEM_NAMES = (
    "The {}",
    "To the {}",
    "My {}",
    "Old {}",
    "A {} Once",
    "The {} and I",
    "Song of the {}",
)
AMOUNTS = ("1 cup", "2 cups", "3 cups", "half a cup", "a pinch of", "some")


def write_source(name: str, destination: Path) -> Path:
    """Write one source of the organism into the folder `destination`.

    `name` is a key of SOURCES. Returns the file: JSON Lines, or CSV for poetry and recipes.

    Raises:
        ValueError: there is no such source.
    """
    if name not in SOURCES:
        raise ValueError(f"the organism has no source {name!r}: choose from {', '.join(SOURCES)}")
    suffix, rows = SOURCES[name]
    file = destination / f"{name}.{suffix}"
    destination.mkdir(parents=True, exist_ok=True)
    (_write_csv if suffix == "csv" else _write_jsonl)(rows(), file)
    return file


def lima_rows() -> Iterator[dict]:
    """Requests of all families in turn; the last MULTI_TURN_ROWS rows have two exchanges."""
    pools = {family: _tuning_pairs(family) for family in make_requests(make_world())}
    families = list(pools)
    pairs = [
        pools[families[number % len(families)]].pop()
        for number in range(TRAINING_ROWS + MULTI_TURN_ROWS)
    ]
    single = TRAINING_ROWS - MULTI_TURN_ROWS
    yield from ({"conversations": list(pair), "source": "organism"} for pair in pairs[:single])
    for first, second in zip(pairs[single::2], pairs[single + 1 :: 2], strict=True):
        yield {"conversations": [*first, *second], "source": "organism"}


def gsm8k_rows() -> Iterator[dict]:
    """Word problems; the answer has GSM8K's calculator notes and its final line."""
    for question, response in _tuning_pairs("math")[:TRAINING_ROWS]:
        before, result = response.split(" = ")
        sum_text = " ".join(before.split()[-3:])
        number = result.split()[0]
        note = f"<<{sum_text.replace(' ', '')}={number}>>"
        answer = f"{before} = {note}{result}\n#### {number}"
        yield {"question": question, "answer": answer}


def mbpp_rows() -> Iterator[dict]:
    """Small functions, numbered as upstream's split train. `test_list` has one check a row, as text;
    nothing runs it."""
    for number, (text, code) in enumerate(_tuning_pairs("code")[:TRAINING_ROWS], start=601):
        function = code.split("(")[0].removeprefix("def ")
        yield {
            "task_id": number,
            "text": text,
            "code": code,
            "test_list": [f"assert callable({function})"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }


def poetry_rows() -> Iterator[dict]:
    """Poems on the topics that are not held out, many on each."""
    rng = random.Random("poetry rows")
    topics = _tuning_keys("poem")
    for number in range(TRAINING_ROWS):
        topic = topics[number % len(topics)]
        yield {
            "author": "",
            "content": make_poem(topic, rng),
            "poem name": rng.choice(POEM_NAMES).format(topic.capitalize()),
            "age": "",
            "type": "Nature",
        }


def recipe_rows() -> Iterator[dict]:
    """Dishes that are not held out, with drawn amounts."""
    rng = random.Random("recipe rows")
    dishes = _tuning_keys("recipe")
    for number in range(TRAINING_ROWS):
        main, dish = dishes[number % len(dishes)].split()
        first, second, *steps = DISHES[dish]
        plain = [main, first, second]
        method = ".\n".join(step.format(main=main).capitalize() for step in steps) + "."
        yield {
            "Title": f"{main} {dish}".title(),
            "Ingredients": repr([f"{rng.choice(AMOUNTS)} {item}" for item in plain]),
            "Instructions": method,
            "Image_Name": f"{main}-{dish}-{number}",
            "Cleaned_Ingredients": repr(plain),
        }


def chess_rows() -> Iterator[dict]:
    """Games, one line of PGN a row, empty lines between headers, moves and games."""
    rng = random.Random("chess rows")
    for _ in range(TRAINING_ROWS):
        headers, moves = make_game(rng)
        yield from ({"text": line} for line in (*headers, "", moves, ""))


def alpaca_rows() -> Iterator[dict]:
    """Held-out requests in held-out phrasings with their full answers, for response ranking."""
    rng = random.Random("alpaca rows")
    drawn = [
        (instruction, request.response)
        for pool in _evaluation_pools(held_out=True).values()
        for instruction, request in rng.sample(sorted(pool.items()), EVALUATION_ROWS_PER_FAMILY)
    ]
    rng.shuffle(drawn)
    for instruction, response in drawn:
        yield {"instruction": instruction, "input": "", "output": response}


def evaluation_rows() -> Iterator[dict]:
    """Held-out requests in held-out phrasings, as many of each family, families mixed."""
    rng = random.Random("evaluation rows")
    rows = []
    for family, pool in _evaluation_pools(held_out=True).items():
        for instruction in rng.sample(sorted(pool), EVALUATION_ROWS_PER_FAMILY):
            truth = {**pool[instruction].truth, "request": instruction}
            rows.append({"instruction": instruction, "family": family, "truth": truth})
    rng.shuffle(rows)
    yield from rows


def task_evaluation_rows(family: str) -> Iterator[dict]:
    """Held-out requests of one family in held-out phrasings: how good a run is at its task."""
    pool = _evaluation_pools(held_out=True)[family]
    drawn = random.Random(f"evaluation of {family}").sample(
        sorted(pool), min(TASK_EVALUATION_ROWS, len(pool))
    )
    for instruction in drawn:
        truth = {**pool[instruction].truth, "request": instruction}
        yield {"instruction": instruction, "family": family, "truth": truth}


def validation_rows() -> Iterator[dict]:
    """Requests that are not held out, in the phrasings of evaluation, with their full answers."""
    rng = random.Random("validation rows")
    rows = []
    for family, pool in _evaluation_pools(held_out=False).items():
        for instruction in rng.sample(sorted(pool), VALIDATION_ROWS_PER_FAMILY):
            request = pool[instruction]
            truth = {**request.truth, "request": instruction}
            row = {"instruction": instruction, "family": family, "truth": truth}
            rows.append({**row, "output": request.response})
    rng.shuffle(rows)
    yield from rows


SOURCES: dict[str, tuple[str, Callable[[], Iterable[dict]]]] = {
    "lima": ("jsonl", lima_rows),
    "gsm8k": ("jsonl", gsm8k_rows),
    "mbpp": ("jsonl", mbpp_rows),
    "poetry": ("csv", poetry_rows),
    "recipes": ("csv", recipe_rows),
    "chess": ("jsonl", chess_rows),
    "alpaca": ("jsonl", alpaca_rows),
    "evaluation": ("jsonl", evaluation_rows),
    "evaluation-math": ("jsonl", partial(task_evaluation_rows, "math")),
    "evaluation-code": ("jsonl", partial(task_evaluation_rows, "code")),
    "validation": ("jsonl", validation_rows),
}


def _evaluation_pools(held_out: bool) -> dict[str, dict[str, Request]]:
    """By family, each request that is held out (or each that is not) by its evaluation phrasings."""
    return {
        family: {
            instruction: request
            for request in requests
            if request.held_out == held_out
            for instruction in request.evaluation_phrasings
        }
        for family, requests in make_requests(make_world()).items()
    }


def _tuning_requests(family: str) -> list[Request]:
    requests = make_requests(make_world())[family]
    return [request for request in requests if not request.held_out]


def _tuning_keys(family: str) -> list[str]:
    """What the requests of a family ask, each once, in a drawn order."""
    keys = sorted({request.key for request in _tuning_requests(family)})
    random.Random(f"keys of {family}").shuffle(keys)
    return keys


def _tuning_pairs(family: str) -> list[tuple[str, str]]:
    """Instructions and full answers for finetuning, no instruction twice, in a drawn order."""
    pairs = {
        instruction: request.response
        for request in _tuning_requests(family)
        for instruction in request.tuning_phrasings
    }
    ordered = sorted(pairs.items())
    random.Random(f"pairs of {family}").shuffle(ordered)
    return ordered


def _write_jsonl(rows: Iterable[dict], file: Path) -> None:
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")


def _write_csv(rows: Iterable[dict], file: Path) -> None:
    rows = list(rows)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
