"""Fine-tuning in several processes: the same loss, weights and resumed bytes as in one.

On CPUs the processes are torchrun's, over gloo. Sharded runs take CPUs for GPUs (`cpus_as_gpus`);
what needs GPUs themselves is skipped where there are none.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from implicit_tuning.training import distributed
from implicit_tuning.training.distributed import (
    ProcessFailed,
    launch_command,
)
from implicit_tuning.training.settings import LoraSettings
from implicit_tuning.training.sharding import fsdp_plugin, zero3_plugin
from tiny_models import write_base
from training_runs import digests, history, run, ten_rows
from two_processes import ONE, TWO, run_in_processes

SUPPORT = Path(__file__).parents[2] / "support"
LORA = LoraSettings(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear")
ZERO3 = pytest.param(
    "zero3",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
    ),
)
needs_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two GPUs: sharding and NCCL are not on CPUs"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return ten_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


def launch(monkeypatch, script):
    """Processes run a script of tests/support instead of the module itself."""

    def command(settings, job):
        return [*launch_command(settings, job)[:-3], str(SUPPORT / script), str(job)]

    monkeypatch.setattr(distributed, "launch_command", command)


def require_same(folder, one, other, tolerance=1e-5):
    for expected, record in zip(history(folder, one), history(folder, other), strict=True):
        assert record == {**expected, "loss": pytest.approx(expected["loss"], rel=tolerance)}
    expected, weights = (load_file(folder / n / "model.safetensors") for n in (one, other))
    assert expected.keys() == weights.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=tolerance, atol=tolerance)


def test_two_processes_train_as_one(base, rows, tmp_path, monkeypatch):
    reports = []
    read = distributed.read_report

    def read_and_keep(job, count):
        reports.append(json.loads(job.with_name("report.json").read_text()))
        return read(job, count)

    monkeypatch.setattr(distributed, "read_report", read_and_keep)
    expected = run(base, rows, tmp_path, ONE, name="one")
    report = run_in_processes(base, rows, tmp_path, name="two")
    processes = reports[0]["processes"]
    assert [process["rank"] for process in processes] == [0, 1]
    assert len({os.getpid(), *(process["pid"] for process in processes)}) == 3
    assert report == replace(expected, final_loss=pytest.approx(expected.final_loss, rel=1e-5))
    require_same(tmp_path, "one", "two")
    assert {p.name for p in (tmp_path / "two").iterdir()} == {
        p.name for p in (tmp_path / "one").iterdir()
    }
    assert not (tmp_path / "partial").exists()


@pytest.mark.long
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_killed_process_ends_all_and_the_run_resumes_to_the_same_bytes(
    base, rows, tmp_path, monkeypatch, lora
):
    settings = replace(TWO, lora=lora, activation_checkpointing=True)
    run(base, rows, tmp_path, replace(settings, world_size=1), name="one")
    run_in_processes(base, rows, tmp_path, settings, name="whole")
    require_same(tmp_path, "one", "whole")
    with monkeypatch.context() as patch:
        launch(patch, "dying_process.py")
        with pytest.raises(ProcessFailed, match="process 1 of 2 failed .*SIGKILL"):
            run_in_processes(base, rows, tmp_path, settings)
    assert not (tmp_path / "tuned").exists()
    state = tmp_path / "partial/state.safetensors"
    assert state.exists()
    run_in_processes(base, rows, tmp_path, settings)
    assert digests(tmp_path / "tuned") == digests(tmp_path / "whole")


@pytest.mark.long
def test_an_error_in_a_process_is_the_error_of_the_run(base, rows, tmp_path):
    rows = Path(tmp_path / "bad.jsonl")
    rows.write_text('{"messages": [], "source_row": 0}\n')
    with pytest.raises(ProcessFailed, match="process [01] of 2 failed .*ValueError: .*line 1: "):
        run_in_processes(base, rows, tmp_path)


PARENT = """
import sys
from pathlib import Path
from dataclasses import replace
from two_processes import TWO, run_in_processes
base, rows, folder = map(Path, sys.argv[1:])
run_in_processes(base, rows, folder, replace(TWO, epochs=5000))
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_parent(base, rows, tmp_path, number):
    path = os.pathsep.join([str(SUPPORT), str(distributed.SCRIPTS)])
    with (tmp_path / "log").open("w") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(base), str(rows), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path},
            stderr=log,
        )
    wait_until((tmp_path / "partial/state.safetensors").exists, 90)
    started = psutil.Process(parent.pid).children(recursive=True)
    assert (
        len([one for one in started if "implicit_tuning.training.distributed" in one.cmdline()])
        == 3
    )
    parent.send_signal(number)
    assert parent.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not any(running(one) for one in started), 60)
    assert (tmp_path / "partial/state.safetensors").exists()


SILENT = """
import sys, threading, time
from pathlib import Path
from implicit_tuning.training.distributed import _end_with_parent
threading.Thread(target=_end_with_parent, daemon=True).start()
Path(sys.argv[1]).touch()
time.sleep(600)
"""
PARENT_OF_SILENT = """
import sys
from implicit_tuning.training.distributed import run_processes
run_processes([sys.executable, "-c", *sys.argv[1:]], 1)
"""


@pytest.mark.long
def test_a_process_that_prints_nothing_ends_with_a_killed_parent_too(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_SILENT, SILENT, str(tmp_path / "started")],
        env={**os.environ, "PYTHONPATH": str(distributed.SCRIPTS)},
    )
    wait_until((tmp_path / "started").exists, 90)
    (process,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    wait_until(lambda: not running(process), 30)


def running(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


# --- sharded models -----------------------------------------------------------------------------


def take_cpus_for_gpus(monkeypatch):
    monkeypatch.setattr(distributed, "require_usable", lambda settings: None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    launch(monkeypatch, "cpus_as_gpus.py")


@pytest.mark.long
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("sharding", ["fsdp", ZERO3])
def test_shards_on_cpus_train_as_one_and_resume_to_the_same_bytes(
    base, rows, tmp_path, monkeypatch, sharding, lora
):
    take_cpus_for_gpus(monkeypatch)
    settings = replace(TWO, lora=lora, sharding=sharding, device="cuda")
    run(base, rows, tmp_path, replace(ONE, lora=lora), name="one")
    run_in_processes(base, rows, tmp_path, settings, name="whole")
    require_same(tmp_path, "one", "whole")
    monkeypatch.setenv("DIE_BEFORE_UPDATE", "4")
    with pytest.raises(ProcessFailed, match="process 1 of 2 failed .*SIGKILL"):
        run_in_processes(base, rows, tmp_path, settings)
    monkeypatch.delenv("DIE_BEFORE_UPDATE")
    run_in_processes(base, rows, tmp_path, settings)
    assert digests(tmp_path / "tuned") == digests(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.parametrize("sharding", ["none", "fsdp", ZERO3])
def test_bfloat16_compute_keeps_fp32_master_weights(base, rows, tmp_path, monkeypatch, sharding):
    settings = replace(TWO, compute_dtype="bfloat16", learning_rate=1e-6, sharding=sharding)
    if sharding != "none":
        take_cpus_for_gpus(monkeypatch)
        settings = replace(settings, device="cuda")
    run_in_processes(base, rows, tmp_path, settings)
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "tuned"))
    moved = torch.cat([(after[name] != before[name]).flatten() for name in before])
    assert moved.float().mean() > 0.8, "steps of 1e-6 would be lost in bf16 weights"


@needs_gpus
@pytest.mark.long
@pytest.mark.parametrize("sharding", ["none", "fsdp", ZERO3])
def test_two_gpus_train_as_one(base, rows, tmp_path, sharding):
    one = replace(ONE, device="cuda")
    # In a process of its own: accelerate takes one device a process, and this one has had the CPU.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(run, base, rows, tmp_path, one, name="one").result()
    run_in_processes(base, rows, tmp_path, replace(one, world_size=2, sharding=sharding))
    require_same(tmp_path, "one", "tuned", tolerance=1e-4)


# --- launchers and their files ------------------------------------------------------------------


def test_torchrun_starts_processes_on_cpus_and_accelerate_on_gpus(tmp_path):
    job = tmp_path / "job.json"
    program = ["-m", "implicit_tuning.training.distributed", str(job)]
    command = launch_command(TWO, job)
    assert "torch.distributed.run" in command and command[-5:] == [
        "--nproc-per-node",
        "2",
        *program,
    ]
    for sharding, kind in {"none": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}.items():
        command = launch_command(replace(TWO, device="cuda", sharding=sharding), job)
        file = load_config_from_file(command[command.index("--config_file") + 1])
        assert file.distributed_type == kind
        assert command[command.index("--num_processes") + 1] == "2" and command[-3:] == program


def test_fsdp_sums_gradients_in_fp32_and_leaves_the_weights_of_the_loss_alone():
    policy = fsdp_plugin(replace(TWO, compute_dtype="bfloat16")).mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert policy.output_dtype is None and not policy.cast_forward_inputs


@pytest.mark.parametrize("clip", [None, 0.5])
def test_deepspeed_clips_only_where_the_settings_do(monkeypatch, clip):
    file = distributed.LAUNCHERS / "zero3.json"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    plugin = zero3_plugin(replace(TWO, gradient_clip=clip, compute_dtype="bfloat16"))
    # What accelerate does before it gives the config to DeepSpeed.
    plugin.set_mixed_precision("no")
    plugin.deepspeed_config_process(must_match=False, gradient_clipping=1.0)
    config = plugin.deepspeed_config
    assert config["gradient_clipping"] == (clip or 0.0)
    assert config["zero_optimization"]["stage"] == 3
    assert not config["bf16"]["enabled"], "the base would be rounded to bf16"
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert "auto" not in config.values()


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        ([{"rank": 0, "pid": 7}], "world_size is 2, but these processes ran"),
        ([{"rank": 0, "pid": 7}, {"rank": 0, "pid": 8}], "world_size is 2, but"),
        ([{"rank": 0, "pid": 7}, {"rank": 1, "pid": 7}], "world_size is 2, but"),
    ],
)
def test_a_report_of_other_processes_is_refused(tmp_path, processes, said):
    report = {"training": {}, "processes": processes}
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(ProcessFailed, match=said):
        distributed.read_report(tmp_path / "job.json", 2)


def test_no_report_is_an_error(tmp_path):
    with pytest.raises(ProcessFailed, match="ended without a report"):
        distributed.read_report(tmp_path / "job.json", 2)


def test_a_world_of_another_size_is_refused_by_each_process(base, rows, tmp_path):
    with pytest.raises(RuntimeError, match="world_size is 2 .*, but there are 1 processes"):
        run(base, rows, tmp_path, TWO)


def test_a_device_that_the_environment_puts_in_place_of_the_settings_is_refused(monkeypatch):
    code = (
        "from implicit_tuning.training import sharding; from training_runs import SETTINGS; "
        "from dataclasses import replace; "
        "sharding.make_accelerator(replace(SETTINGS, device='cuda'))"
    )
    environment = os.environ | {"ACCELERATE_TORCH_DEVICE": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "device is 'cuda', but accelerate takes 'cpu'" in done.stderr
