"""`python -m implicit_tuning calibrate`, as a user starts it, against a real server on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from judge_server import JudgeServer, Reply, good

CANARY = "sk-canary-0123456789abcdef"
FILES = sorted((Path(__file__).parents[2] / "fixtures/annotations").glob("*/annotations.json"))
FILE = "results/calibration/served/calibration.json"


class Place:
    """A folder that looks like the repository, with an endpoint judge in its config."""

    def __init__(self, folder, repository):
        self.folder = folder
        self.judge = {"kind": "openai", "model": "judge-1", "max_retries": 1}
        self._scripts = repository / "workflow/scripts"
        for name in ("Snakefile", "config", "resources"):
            (folder / name).symlink_to(repository / name)
        self._config = yaml.safe_load((repository / "tests/fixtures/smallest.yaml").read_text())

    def calibrate(self, server, *annotations):
        self._config["judges"]["served"] = {**self.judge, "base_url": server.url}
        (self.folder / "test.yaml").write_text(yaml.safe_dump(self._config))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")}
        environment |= {"PYTHONPATH": str(self._scripts), "OPENAI_API_KEY": CANARY}
        command = [sys.executable, "-m", "implicit_tuning", "calibrate", "--judge", "served"]
        command += ["--configfile", "test.yaml", "--annotations", *map(str, annotations)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def written(self):
        folder = self.folder / "results/calibration/served"
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path, repository):
    return Place(tmp_path, repository)


@pytest.mark.long
def test_an_endpoint_is_calibrated_once_and_for_all(place):
    with JudgeServer() as server:
        first = place.calibrate(server, *FILES)
        written = place.written()
        calls = len(server.requests)
        place.judge["calibration"] = FILE
        second = place.calibrate(server, *FILES)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert calls == len(server.requests) == 12
    assert place.written() == written
    assert (
        "12 pairs of weighted_alpaca_eval_gpt4_turbo, each judged once by openai-" in first.stdout
    )
    assert f"write 'calibration: {FILE}' under judges.served" in first.stdout
    assert "under judges.served" not in second.stdout
    measures = json.loads(written["calibration.json"])["measures"]
    assert measures["longer_judge"]["value"] == 100.0
    assert (
        f"| agreement                    | {measures['agreement']['value']:.1f} % [" in first.stdout
    )
    everything = b"".join(p.read_bytes() for p in place.folder.rglob("*.json*") if p.is_file())
    assert CANARY.encode() not in everything
    assert CANARY not in first.stdout + first.stderr


@pytest.mark.long
def test_both_orders_are_twelve_more_calls_and_show_the_judge_s_consistency(place):
    with JudgeServer() as server:
        place.calibrate(server, *FILES)
        place.judge["both_orders"] = True
        done = place.calibrate(server, *FILES)
    assert len(server.requests) == 24
    assert "each judged twice" in done.stdout
    measures = json.loads(place.written()["calibration.json"])["measures"]
    assert measures["position_consistency"]["value"] == 100.0
    assert measures["first_shown"]["value"] == 50.0


def test_faults_end_it_with_their_count_and_the_next_one_asks_for_the_rest(place):
    def failing(request, earlier):
        fault = "jam" in request["messages"][-1]["content"]
        return Reply(status=500, body=b"{}") if fault else good(request, earlier)

    with JudgeServer(failing) as server:
        done = place.calibrate(server, *FILES)
    assert done.returncode == 1
    assert (
        "1 of 4 pairs without a verdict (1 judge_failed; the first: 500"
        in done.stderr.splitlines()[-1]
    )
    assert "Traceback" not in done.stderr
    assert not (place.folder / "results/calibration").exists()
    kept = sum(1 for file in place.folder.glob("results/cache/calibration/*") for _ in file.open())
    with JudgeServer() as server:
        mended = place.calibrate(server, *FILES)
    assert mended.returncode == 0, mended.stderr
    assert (kept, len(server.requests)) == (3, 9)


def test_mistakes_end_in_one_line_and_no_call(place, tmp_path):
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "output_1": "b"}]')
    with JudgeServer() as server:
        missing = place.calibrate(server, "none.json")
        unreachable = place.calibrate(server, f"{server.url}/no/annotations.json")
        broken = place.calibrate(server, "rows.json")
    assert "none.json: no such file" in missing.stderr.splitlines()[-1]
    assert "could not be fetched" in unreachable.stderr.splitlines()[-1]
    assert "rows.json, row 0: `output_2` is None" in broken.stderr.splitlines()[-1]
    for done in (missing, unreachable, broken):
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert server.requests == []
