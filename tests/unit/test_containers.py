"""Both container recipes install the same, by pyproject.toml's pins. (They are not built here.)"""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

RECIPES = ["Dockerfile", "implicit-tuning.def"]


@pytest.fixture
def recipes(repository):
    return {name: (repository / "containers" / name).read_text() for name in RECIPES}


def test_recipes_name_no_pins_and_the_python_of_the_environment(repository, recipes):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    [python] = [line for line in environment["dependencies"] if str(line).startswith("python=")]
    for text in (*recipes.values(), (repository / "containers/install.sh").read_text()):
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        assert not re.search(r"[=<>~]=\s*[0-9]|\d+\.\d+\.\d+", code)
    for text in recipes.values():
        assert re.findall(r"python:(\S+)-slim", text) == [python.partition("=")[2]]


def test_recipes_copy_and_install_the_same(repository, recipes):
    docker, apptainer = recipes.values()
    copies = re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE)
    copied = sorted(" ".join(copies).split())
    section = re.search(r"%files\n(.*?)\n\n", apptainer, re.DOTALL)[1]
    assert sorted(line.split()[0] for line in section.splitlines()) == copied
    assert all((repository / name).exists() for name in copied)
    installs = [re.findall(r"sh containers/install.sh (.*)", text) for text in recipes.values()]
    assert installs == [['"$TORCH_INDEX"'], ['"{{ torch_index }}"']]
    assert "ARG TORCH_INDEX=\n" in docker
    assert "torch_index=\n" in apptainer
    assert re.search(r"^USER 1000", docker, re.MULTILINE)
    assert 'ENTRYPOINT ["snakemake"]' in docker
    assert 'exec snakemake "$@"' in apptainer


def test_the_builder_is_sent_what_is_copied(repository, recipes):
    ignore = (repository / "containers/Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert sent == set(
        " ".join(re.findall(r"^COPY (.*) \S+$", recipes["Dockerfile"], re.MULTILINE)).split()
    )


@pytest.mark.parametrize(
    ("index", "asked"),
    [("https://index.example/cu128", " --index-url https://index.example/cu128"), ("", "")],
)
def test_install_takes_torch_from_the_pins_and_its_build_from_the_argument(
    repository, tmp_path, index, asked
):
    """A `python` that only prints what pip is asked for, and runs everything else."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo "$@" || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", "containers/install.sh", index],
        cwd=repository,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    dependencies = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    [torch] = [line for line in dependencies["dependencies"] if line.startswith("torch=")]
    assert done.stdout.splitlines() == [
        f"-m pip install --no-cache-dir{asked} {torch}",
        "-m pip install --no-cache-dir --editable .[embeddings]",
    ]
