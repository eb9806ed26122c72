"""Data folders of comparisons with made-up verdicts, as the tables read them."""

import json
import random


def annotations(win_probability, seed, count=60, **fields):
    """Rows of wins and losses by chance, with answers one and a half times as long."""
    draw = random.Random(f"{win_probability} {seed}")
    return [
        {
            "index": index,
            "instruction_sha256": str(index),
            "preference": 2.0 if draw.random() < win_probability else 1.0,
            "length_1": 10,
            "length_2": 15,
            "generator_1": "instruction",
            "generator_2": "model",
        }
        | fields
        for index in range(count)
    ]


def write_comparison(folder, rows, judge_id="oracle-1", length_controlled=None):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "annotations.jsonl").write_text(text)
    status = "computed: v1" if length_controlled is not None else "not computed: no such judge"
    summary = {
        "judge_id": judge_id,
        "length_controlled_winrate": length_controlled,
        "lc_status": status,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def comparison(folder, adaptation, seed, rate=0.4, base="a", judge="oracle", **more):
    """One input of a table: the levels of the comparison, and the folder that was written."""
    own = "none" if adaptation.startswith(("base", "rules")) else seed
    name = f"{base}/{adaptation}/{own}/set/{seed}/{judge}"
    rows = more.pop("rows", None)
    rows = annotations(rate, seed) if rows is None else rows
    return {name: write_comparison(folder / name, rows, **more)}


def grid(folder, rates, bases=("b", "a"), seeds=(2, 1)):
    """Comparisons of every base, adaptation (with its probability of a win) and seed."""
    inputs = {}
    for base in bases:
        for adaptation, rate in rates.items():
            for seed in seeds:
                inputs |= comparison(folder, adaptation, seed, rate, base)
    return inputs
