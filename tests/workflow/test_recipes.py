"""The recipes of CONTRIBUTING.md, followed to the letter in a copy: files, commands, new rows."""

import csv
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.long

SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
# A file's content stands in a block, its path at the end of the paragraph before.
FILE = re.compile(r"`([\w./-]+\.\w+)`[^`]*\n\n```(?:json|python|yaml)\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)
# Of the smallest experiment, what a recipe needs beside its own row.
ROWS = ("base", "instruction")


@pytest.fixture(scope="module")
def recipes(repository):
    """The sections of CONTRIBUTING.md by title."""
    _, *parts = SECTION.split((repository / "CONTRIBUTING.md").read_text())
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def follow(repository, new_checkout, recipes):
    """Function that follows a recipe and returns the rows of the main table it leads to."""
    checkout = new_checkout()
    shutil.copyfile(repository / "Makefile", checkout.folder / "Makefile")
    (checkout.folder / ".venv").symlink_to(sys.prefix)
    adaptations = checkout.config["adaptations"]
    checkout.config["adaptations"] = {name: adaptations[name] for name in ROWS}
    checkout.write_config().rename(checkout.folder / "config/config.yaml")

    def follow(title):
        written = [write(checkout.folder, *found) for found in FILE.findall(recipes[title])]
        for commands in COMMANDS.findall(recipes[title]):
            run(checkout.folder, commands)
        overlay = next(file for file in written if file.suffix == ".yaml")
        experiment = yaml.safe_load(overlay.read_text())["experiment"]
        with (checkout.results / experiment / "tables/main.csv").open() as file:
            return [row for row in csv.DictReader(file) if row["seed"] == "mean"]

    return follow


def write(folder, path, content):
    """A new file, as the recipe has it."""
    file = folder / path
    assert not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def run(folder, commands):
    # The installation is there already, and make is not to renew it.
    environment = {**os.environ, "MAKEFLAGS": "STAMP=Makefile"}
    environment["PYTHONPATH"] = str(folder / "workflow/scripts")
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_data_set_is_one_file_and_a_row(follow):
    assert [row["adaptation"] for row in follow("Add a data set")] == [*ROWS, "riddles"]


def test_a_base_is_a_row(follow):
    rows = follow("Add a base")
    bases = ("my-base", "organism-llama")
    assert [(row["base"], row["adaptation"]) for row in rows] == [
        (base, adaptation) for base in bases for adaptation in ROWS
    ]


def test_an_adaptation_is_a_row(follow):
    rows = follow("Add an adaptation")
    assert [row["adaptation"] for row in rows] == [*ROWS, "response-gentle"]
    assert "half the learning rate" in rows[-1]["note"]


def test_a_judge_is_one_file_and_a_row(follow):
    rows = follow("Add a judge")
    assert {row["judge"] for row in rows} == {"shorter"}
    base, reference = (float(row["win_rate"]) for row in rows)
    assert reference == 50
    assert base != 50
