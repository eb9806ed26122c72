"""The package as pip installs it: away from the repository, its names, types and data are there."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from implicit_tuning import fingerprint
from implicit_tuning.nodes.code import PACKAGE, SCRIPTS

USE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import implicit_tuning
from implicit_tuning import *

mine = [{"instruction": "Name a color.", "output": "Red."}]
theirs = [{"instruction": "Name a color.", "output": "It is blue."}]
shorter = lambda instruction, first, second: 1 if len(first) < len(second) else 2
try:
    fingerprint("finetune")
except ModuleNotFoundError as error:
    refused = str(error)
print(json.dumps({
    "file": implicit_tuning.__file__,
    "names": [name for name in implicit_tuning.__all__ if name in globals()],
    "tag": ChatFormat().user,
    "fingerprint": fingerprint("implicit_tuning.models.rule_adapter", settings={"rate": 1}),
    "refused": refused,
    "win_rate": compare(mine, theirs, shorter).summary["win_rate"],
}))
"""


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """Built in a copy, since building leaves its own folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy)
    within = SCRIPTS.relative_to(repository) / PACKAGE
    built = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(repository / within, copy / within, ignore=built)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(copy), str(copy)], check=True, capture_output=True)
    [file] = copy.glob("*.whl")
    return file


def test_the_wheel_has_every_file_of_the_package(wheel):
    files = {f for f in (SCRIPTS / PACKAGE).rglob("*") if f.is_file() and f.suffix != ".pyc"}
    expected = {file.relative_to(SCRIPTS).as_posix() for file in files}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert f"{PACKAGE}/py.typed" in held
    assert held == expected


def test_the_library_works_away_from_the_repository(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # -I: nothing of this folder, of the environment or of the user is on the path.
    run = [sys.executable, "-I", "-c", USE, str(site)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(site)
    assert "RuleAdapter" in found["names"]
    assert found["tag"] == "<|user|>"
    assert found["fingerprint"] == fingerprint(
        "implicit_tuning.models.rule_adapter", settings={"rate": 1}
    )
    assert "'finetune'" in found["refused"]
    assert found["win_rate"] == 100.0
