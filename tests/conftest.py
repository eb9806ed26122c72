"""What several test modules need: a job's spec without a workflow around it."""

import json
import os
from pathlib import Path

import pytest

from implicit_tuning.nodes.code import Code


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def no_openai_environment(monkeypatch):
    """No key and no address of an endpoint but those that a test sets."""
    for name in [name for name in os.environ if name.startswith("OPENAI")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_spec(tmp_path):
    """Function that returns the spec of a job with the shuffle script's code, as JSON."""

    def make(stage="finetune", levels=("b", "a", "1"), key="k1", **changes) -> str:
        code = Code(("shuffle",))
        spec = {
            "stage": stage,
            "levels": list(levels),
            "key": key,
            "plan_key": f"p-{key}",
            "roots": code.roots,
            "libraries": code.libraries,
            "fingerprint": code.fingerprint,
            "settings": {},
            "runtime": {},
            "upstream": {},
            "folder": str(tmp_path.joinpath("results/nodes", stage, *levels, key)),
            "partial": str(tmp_path / "results/partial" / f"p-{key}"),
            "cache": str(tmp_path / "results/cache" / stage / "b/a.v1.jsonl"),
            "earlier_caches": str(tmp_path / "results/cache" / stage),
            "spending": str(tmp_path / "results/cache/spending"),
        }
        return json.dumps({**spec, **changes})

    return make
