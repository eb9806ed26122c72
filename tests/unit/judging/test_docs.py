"""docs/judging.md: its example runs as printed, its traps have tests, its pins are set."""

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from implicit_tuning.judging.calibration import MEANINGS


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs/judging.md").read_text()


def block(page, language):
    [first, *_] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return first


def test_the_example_runs_and_prints_what_the_page_says(page):
    run = [sys.executable, "-c", block(page, "python")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == block(page, "text")


def test_every_trap_has_tests_that_exist(page, repository):
    traps = [line for line in page.splitlines() if line.startswith("| ") and ".py::" in line]
    assert len(traps) == 16
    for trap in traps:
        found = re.findall(r"`([\w/]+\.py)::(test_\w+)`", trap)
        assert len(found) == trap.count(".py::")
        for file, test in found:
            source = (repository / "tests/unit" / file).read_text()
            assert f"\ndef {test}(" in source, (file, test)


def test_every_measure_of_a_calibration_is_explained(page):
    explained = page.partition("## Calibration")[2]
    for name in MEANINGS:
        stem = re.sub(r"_(judge|yardstick)$", "_*", name)
        assert f"`{stem}`" in explained, name


def test_the_libraries_that_alpaca_eval_needs_are_pinned_below_what_breaks_it(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    pins = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    for name, breaking in {"pandas": "3.0", "scikit-learn": "1.10", "setuptools": "82"}.items():
        assert not pins[name].contains(breaking), name
    assert str(pins["alpaca-eval"]) == "==0.6.6"
