"""docs/tutorial.md, run from its own text in a clone: its commands, its edits, what they print."""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

# A block, and the paragraph before it, which names the file that a diff is of.
BLOCK = re.compile(r"([^\n]*(?:\n[^\n]+)*)\n\n```(console|diff)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
# `...` stands for anything, and a number with decimals for one close to it.
VARYING = re.compile(r"(^\.\.\.\n|\.\.\.|\d+\.\d+| +)", re.MULTILINE)
CLOSE = 2.0  # percentage points; another processor may decide a few answers otherwise
# Commands that change what those after them find.
LASTING = ("cd ", "export ")


@pytest.fixture
def origin(repository, tmp_path):
    """The repository as a commit of the present tree, to clone from."""
    ignored = shutil.ignore_patterns(".venv", ".git", ".snakemake", "__pycache__", "results")
    shutil.copytree(repository, tmp_path / "origin", ignore=ignored)
    git = ["git", "-c", "user.name=tutorial", "-c", "user.email=tutorial@example.org"]
    for arguments in ("init --quiet", "add --all", "commit --quiet --message tree"):
        subprocess.run([*git, *arguments.split()], cwd=tmp_path / "origin", check=True)
    return tmp_path / "origin"


class Reader:
    """Does what the page says, in a folder."""

    def __init__(self, folder, origin):
        self.folder = folder
        self.before = []
        # The installation is there already, and make is not to renew it.
        clone = folder / "implicit-tuning"
        # A make around the tests would be known to ours, which then tells its folders.
        outside = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"}
        self.environment = {
            **outside,
            "REPOSITORY": str(origin),
            "MAKEFLAGS": "STAMP=Makefile",
            "PYTHONPATH": str(clone / "workflow/scripts"),
        }

    def type(self, command):
        """Run one command; returns all that it printed."""
        done = subprocess.run(
            ["bash", "-euc", "\n".join([*self.before, command])],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        if command.startswith("git clone"):
            (self.folder / "implicit-tuning/.venv").symlink_to(sys.prefix)
        if command.startswith(LASTING):
            self.before.append(command)
        return done.stdout

    def edit(self, paragraph, diff):
        """Apply a diff to the file that the paragraph before it names last."""
        file = self.folder / "implicit-tuning" / re.findall(r"`([\w./-]+\.\w+)`", paragraph)[-1]
        lines = diff.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert file.read_text().count(old) == 1, f"{file} has not once:\n{old}"
        file.write_text(file.read_text().replace(old, new))


def assert_like(expected, printed):
    """Fail unless what was printed is what the page says."""
    parts = VARYING.split(expected)
    found = re.fullmatch("".join(map(pattern_of, parts)), printed)
    assert found, f"expected:\n{expected}\nprinted:\n{printed}"
    numbers = [float(part) for part in parts if re.fullmatch(r"\d+\.\d+", part)]
    for said, came in zip(numbers, map(float, found.groups()), strict=True):
        assert abs(said - came) <= CLOSE, f"{came} is not about {said}:\n{printed}"


def pattern_of(part):
    if part == "...\n":
        return r"(?:.*\n)*?"
    if part == "...":
        return ".*?"
    if re.fullmatch(r"\d+\.\d+", part):
        return r"(\d+\.\d+)"
    return " +" if part and not part.strip(" ") else re.escape(part)


def test_the_tutorial_says_what_happens(repository, origin, tmp_path):
    reader = Reader(tmp_path, origin)
    for paragraph, kind, content in BLOCK.findall((repository / "docs/tutorial.md").read_text()):
        if kind == "diff":
            reader.edit(paragraph, content)
            continue
        for command, expected in COMMAND.findall(content):
            assert_like(expected, reader.type(command))


@pytest.mark.parametrize(
    ("expected", "printed", "alike"),
    [
        ("a b\n", "a   b\n", True),
        ("a b\n", "a c\n", False),
        ("a\n", "a\nb\n", False),
        ("a\n...\n", "a\nb\nc\n", True),
        ("...\nc\n", "a\nb\nc\n", True),
        ("took ... s\n", "took 12.5 s\n", True),
        ("rate 49.0\n", "rate 50.5\n", True),
        ("rate 49.0\n", "rate 40.5\n", False),
        ("rate 49.0\n", "rate high\n", False),
    ],
)
def test_what_is_printed_is_compared(expected, printed, alike):
    if alike:
        assert_like(expected, printed)
    else:
        with pytest.raises(AssertionError):
            assert_like(expected, printed)
