"""The benchmark of a GPU runs, if only on a tiny model and the CPU."""

import subprocess
import sys

import pytest


@pytest.mark.long
def test_it_prints_its_tables_and_finds_a_device_in_agreement_with_itself(repository):
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--device", "cpu"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("training, 2 layers", "generation, batch 4", "losses, as at 7B", "yes"):
        assert part in done.stdout


def test_without_a_gpu_it_says_what_to_do(repository):
    command = [sys.executable, "benchmarks/gpu.py"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "torch sees no GPU here: give --tiny --device cpu" in done.stderr
