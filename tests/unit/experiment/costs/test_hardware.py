"""Which GPUs a job would see, from a program that stands in the place of nvidia-smi."""

import pytest

from implicit_tuning.experiment.costs.hardware import UnreadableGpus, hardware_of, visible_gpus

TWO_GPUS = 'printf "NVIDIA H100 80GB HBM3, 81559\\nNVIDIA A10, 23028\\n"'


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Function that puts a program with these lines of shell on the path; None for no program."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(script):
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        if script is not None:
            program = tmp_path / "nvidia-smi"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    return put


def test_gpus_have_names_and_memory(nvidia_smi):
    nvidia_smi(TWO_GPUS)
    first, second = visible_gpus()
    assert (first.name, second.name) == ("NVIDIA H100 80GB HBM3", "NVIDIA A10")
    # 81,559 MiB.
    assert first.memory_gb == pytest.approx(85.5, abs=0.1)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["NVIDIA A10"]),
        ("1,0", ["NVIDIA A10", "NVIDIA H100 80GB HBM3"]),
        ("", []),
        ("-1", []),
        ("7", []),
        ("GPU-5d3c", ["NVIDIA H100 80GB HBM3"]),
    ],
)
def test_hidden_gpus_do_not_count(nvidia_smi, monkeypatch, visible, names):
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in visible_gpus()] == names


def test_without_the_drivers_tool_there_are_none(nvidia_smi):
    nvidia_smi(None)
    assert visible_gpus() == []


@pytest.mark.parametrize("script", ["echo broken driver >&2; exit 9", "echo no table"])
def test_a_driver_that_does_not_tell_is_named(nvidia_smi, script):
    nvidia_smi(script)
    with pytest.raises(UnreadableGpus, match="nvidia-smi"):
        visible_gpus()


def test_cores_are_those_of_this_machine_unless_the_config_says():
    section = {
        "name": "m", "gpus": 0, "gpu_memory_gb": 0, "gpu_tflops": 0, "gpu_bandwidth_gb_per_s": 0,
        "cores": None, "usd_per_gpu_hour": None,
    }  # fmt: skip
    assert hardware_of(section).cores >= 1
    assert hardware_of({**section, "cores": 7}).cores == 7
    assert hardware_of(None).gpus == 0
