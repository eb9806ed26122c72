"""What is found to go wrong before the first job: one list, each line with key, value and fix."""

import json
import os
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import COMMIT, TOKEN, Fault, HubServer
from implicit_tuning import __main__ as commands
from implicit_tuning.experiment.costs.hardware import GB
from implicit_tuning.experiment.preflight.checks import cheap_problems, preflight
from implicit_tuning.remote.lockfile import Pin, PinnedFile
from planned import plan_of

SHA256 = "0" * 64
TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"
HUB_ROWS = "datasets={organism-mbpp: {hub: {repo: owner/rows, file: rows.jsonl}, gated: true}}"
ROWS = "datasets/owner/rows@main"
SHAPE_7B = "{parameters: 6738415616, layers: 32, width: 4096, kv_width: 4096, vocabulary: 32000}"
HUB_BASE = f"bases={{large: {{hub: {{repo: owner/base}}, licence: Llama-2, shape: {SHAPE_7B}}}}}"
BASE = "models/owner/base@main"
ON_GPU = "training={device: cuda, compute_dtype: bfloat16, storage_dtype: bfloat16}"
GPU_80 = "printf 'NVIDIA H100, 81559\\n'"


def pinned(name="rows.jsonl", size=10):
    return Pin(COMMIT, {name: PinnedFile(SHA256, size)})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server that plays the hub for this process, with a token for it."""
    with HubServer() as server:
        # Read when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + TEMPLATE)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        yield server


@pytest.fixture
def problems_of(repository, tmp_path, monkeypatch, no_openai_environment):
    """Function that returns the problems of the default experiment under overrides."""

    def look(*overrides, cluster=False, check=preflight, **options):
        plan, paths = plan_of(repository, tmp_path, *overrides, **options)
        if check is cheap_problems:
            return cheap_problems(plan, paths)
        return preflight(plan, paths, cluster).problems

    return look


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Function that puts a program of this shell script in the place of the driver's tool."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def put(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return put


def test_the_default_experiment_has_no_problems(problems_of):
    assert problems_of() == []


# --- sources ------------------------------------------------------------------------------------


def test_a_source_that_is_pinned_and_answers_is_no_problem(problems_of, hub):
    hub.repository("datasets/owner/rows", {"rows.jsonl": b"{}"}, readers=(TOKEN,))
    assert problems_of(HUB_ROWS, lock={ROWS: pinned()}) == []
    (request,) = hub.asked_for("rows.jsonl")
    assert (request.method, request.headers["authorization"]) == ("HEAD", f"Bearer {TOKEN}")


def test_an_adapter_of_the_hub_is_asked_for_what_it_has(problems_of, hub):
    hub.repository("models/owner/adapter", {"adapter_config.json": b"{}"})
    files = {name: PinnedFile("d" * 64, 9) for name in ("adapter_config.json", "tokenizer.json")}
    row = "adaptations={mine: {kind: checkpoint, hub: {repo: owner/adapter}}}"
    assert problems_of(row, lock={"models/owner/adapter@main": Pin(COMMIT, files)}) == []
    assert hub.asked_for("adapter_config.json") and not hub.asked_for("/config.json")


def test_a_gated_source_needs_a_token_and_is_not_asked_without(problems_of, hub, monkeypatch):
    hub.repository("datasets/owner/rows", {"rows.jsonl": b"{}"}, readers=(TOKEN,))
    monkeypatch.delenv("HF_TOKEN")
    (problem,) = problems_of(HUB_ROWS, lock={ROWS: pinned()})
    assert problem.startswith("datasets.organism-mbpp.gated: 'owner/rows' is gated")
    assert "set HF_TOKEN" in problem
    assert not hub.requests
    assert problems_of(HUB_ROWS, lock={ROWS: pinned()}, check=cheap_problems) == [problem]


def test_the_token_of_a_login_will_do(problems_of, hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "no-login").write_text(TOKEN)
    assert problems_of(HUB_ROWS, lock={ROWS: pinned()}, check=cheap_problems) == []


def test_a_streamed_pin_is_for_its_number_of_records(problems_of, hub):
    streamed = HUB_ROWS.replace("file: rows.jsonl", "file: rows.jsonl, streamed: true")
    for rows, found in ((5, 0), (6, 1), (None, 1)):
        asked = streamed.replace("gated: true", f"rows: {'null' if rows is None else rows}")
        pin = Pin(COMMIT, {"rows.jsonl": PinnedFile(SHA256, 10, first_rows=9, records=5)})
        problems = problems_of(asked, check=cheap_problems, lock={ROWS: pin})
        assert len([problem for problem in problems if "make lock" in problem]) == found


def test_a_token_that_can_be_none_is_told(problems_of, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "tök\nen")
    problems = problems_of(HUB_ROWS, check=cheap_problems, lock={ROWS: pinned()})
    assert any(problem.startswith("HF_TOKEN: holds characters") for problem in problems)
    assert not any("tök" in problem for problem in problems)


def test_a_source_that_is_not_locked_asks_for_make_lock(problems_of, hub):
    (problem,) = problems_of(HUB_ROWS, lock={}, check=cheap_problems)
    assert "datasets.organism-mbpp.hub: 'owner/rows/rows.jsonl' at 'main'" in problem
    assert "make lock" in problem
    model, *_ = problems_of(HUB_BASE, lock={}, check=cheap_problems)
    assert model.startswith("bases.large.hub: 'owner/base' at 'main'")
    assert not hub.requests


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(status=401), "no access (status 401)"),
        (Fault(status=403), "set HF_TOKEN to a valid token"),
        (Fault(status=404), "no such repository, revision, or file rows.jsonl"),
        (Fault(status=503), "no answer (status 503)"),
        (Fault(status=429), "no answer (status 429)"),
    ],
)
def test_a_source_that_refuses_is_told_with_the_reason(problems_of, hub, fault, told):
    hub.repository("datasets/owner/rows", {"rows.jsonl": b"{}"}).fail("rows.jsonl", fault)
    (problem,) = problems_of(HUB_ROWS, lock={ROWS: pinned()})
    assert problem.startswith("datasets.organism-mbpp.hub: 'owner/rows'")
    assert told in problem
    assert TOKEN not in problem


def test_all_sources_are_asked_though_the_first_fails(problems_of, hub):
    hub.repository("models/owner/base", {"config.json": b"{}"})
    lock = {ROWS: pinned(), BASE: pinned("model.safetensors", 13)}
    problems = problems_of(HUB_ROWS, HUB_BASE, lock=lock, cluster=True)
    assert any(problem.startswith("datasets.organism-mbpp.hub") for problem in problems)
    assert not any(problem.startswith("bases.large") for problem in problems)
    assert hub.asked_for("owner/base/resolve")


def test_a_hub_out_of_reach_is_told(problems_of, hub, monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9" + TEMPLATE)
    (problem,) = problems_of(HUB_ROWS, lock={ROWS: pinned()})
    assert "no answer (ConnectError)" in problem


@pytest.fixture
def web():
    """Function that serves this status to every request; returns the address."""
    servers = []

    def serve(status, content=b"{}"):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Authorization")))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = []
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", server.asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "told"), [(200, None), (405, None), (404, "status 404")])
def test_a_file_of_the_web_must_answer(problems_of, web, status, told):
    address, _ = web(status)
    source = f"{{url: {{address: '{address}/rows.jsonl', sha256: '{SHA256}'}}}}"
    problems = problems_of(f"datasets={{organism-mbpp: {source}}}")
    assert len(problems) == (told is not None)
    if told:
        assert told in problems[0]
        assert "datasets.organism-mbpp.url.address" in problems[0]


# --- endpoints ----------------------------------------------------------------------------------


def served(address="null"):
    entry = f"{{kind: openai, model: big, api_key_env: OPENAI_TEST, base_url: {address}}}"
    return "judge=served", f"judges={{served: {entry}}}"


def listing(*names):
    return json.dumps({"data": [{"id": name} for name in names]}).encode()


def test_a_judge_that_answers_is_asked_once_and_for_nothing_that_costs(
    problems_of, web, monkeypatch
):
    monkeypatch.setenv("OPENAI_TEST", "sk-secret")
    address, asked = web(200, listing("small", "big"))
    assert problems_of(*served(f"{address}/v1")) == []
    assert asked == [("/v1/models", "Bearer sk-secret")]


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (200, listing("small"), "judges.served.model: the endpoint has no 'big', but small"),
        (200, b"{}", None),
        (404, b"{}", None),
        (429, b"{}", None),
        (
            401,
            b'{"error": "sk-secret is wrong"}',
            "OPENAI_TEST holds a key that it does not accept",
        ),
        (500, b"{}", "answers 500"),
    ],
)
def test_what_an_endpoint_answers(problems_of, web, monkeypatch, status, content, told):
    monkeypatch.setenv("OPENAI_TEST", "sk-secret")
    address, _ = web(status, content)
    problems = problems_of(*served(f"{address}/v1"))
    assert len(problems) == (told is not None)
    assert "sk-secret" not in str(problems)
    if told:
        assert told in problems[0]
        assert problems[0].startswith("judges.served.")


def test_an_endpoint_that_is_not_there(problems_of):
    (problem,) = problems_of(*served("http://127.0.0.1:9/v1"))
    assert "judges.served.base_url: 127.0.0.1 does not answer (ConnectError)" in problem


def test_a_paid_endpoint_needs_its_key(problems_of):
    (problem,) = problems_of(*served())
    assert problem.startswith("judges.served.api_key_env: the environment variable OPENAI_TEST is")


def test_the_address_of_the_environment_counts(problems_of, web, monkeypatch):
    address, asked = web(200)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{address}/v1")
    assert problems_of(*served()) == []
    assert asked


def test_a_rewriter_must_answer_too(problems_of):
    rewriter = "rewriters={other: {kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1'}}"
    row = "adaptations={more: {kind: finetune, data: organism-lima, rephrase: other}}"
    (problem,) = problems_of(rewriter, row)
    assert problem.startswith("rewriters.other.base_url")


# --- disk, GPUs, memory, engines ----------------------------------------------------------------


def test_too_little_disk_is_told_with_both_sizes(problems_of, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (problem,) = problems_of()
    assert problem.startswith("results: the run needs up to 0.1 GB more")
    assert "0.0 GB free" in problem
    assert problems_of(check=cheap_problems) == [problem]


def test_results_that_cannot_be_written_to(problems_of, monkeypatch, tmp_path):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    (problem,) = problems_of()
    assert problem.startswith("results: ")
    assert "cannot be written to" in problem


def test_a_job_on_a_gpu_needs_one(problems_of, nvidia_smi):
    (problem,) = problems_of(ON_GPU)
    assert "device: 'cuda' for finetune, but no GPU is visible" in problem
    assert "CLUSTER=1" in problem
    nvidia_smi("exit 9")
    assert "nvidia-smi" in problems_of(ON_GPU)[0]


def test_a_torch_without_cuda_is_told(problems_of, nvidia_smi, monkeypatch):
    nvidia_smi(GPU_80)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert any("has no CUDA" in problem for problem in problems_of(ON_GPU))


@pytest.fixture
def with_cuda(monkeypatch):
    """A torch that was built for GPUs, as far as its version tells."""
    from importlib import metadata

    real = metadata.version
    version = {"torch": "2.13.0+cu128"}.get
    monkeypatch.setattr(metadata, "version", lambda name: version(name) or real(name))


def test_processes_need_a_gpu_each(problems_of, nvidia_smi, with_cuda):
    nvidia_smi(GPU_80)
    assert problems_of(ON_GPU) == []
    (problem,) = problems_of(ON_GPU, "training={world_size: 2}")
    assert "training.world_size: 2, on 1 GPUs" in problem


@pytest.mark.parametrize(
    ("training", "fits"),
    [
        ("{}", False),
        # 54 GB of state on each of two, and what is computed.
        ("{world_size: 2, sharding: fsdp, activation_checkpointing: true}", True),
        ("{lora: {rank: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}}", True),
    ],
)
def test_a_7b_run_must_fit_on_its_gpus(problems_of, nvidia_smi, with_cuda, training, fits, hub):
    nvidia_smi(f"{GPU_80}; {GPU_80}")
    hub.repository("models/owner/base", {"config.json": b"{}"})
    options = {"lock": {BASE: pinned("model.safetensors", 13)}}
    generation = "generation={device: cuda, dtype: bfloat16}"
    disk = "runtime={keep_checkpoints: false}"
    only = (HUB_BASE, ON_GPU, f"training={training}", generation, disk)
    found = [p for p in problems_of(*only, **options) if p.startswith("training:")]
    assert len(found) == (not fits)
    if not fits:
        assert "finetune on large needs up to 1" in found[0]
        assert "GPU NVIDIA H100 has 85.5" in found[0]
        assert "take sharding fsdp" in found[0]


def test_a_cluster_is_reckoned_with_by_its_config(problems_of, nvidia_smi):
    cluster = (
        "hardware={name: eight, gpus: 8, gpu_memory_gb: 80, gpu_tflops: 900, "
        "gpu_bandwidth_gb_per_s: 3000, cores: 64}"
    )
    assert problems_of(ON_GPU, cluster, "training={world_size: 8}", cluster=True) == []
    assert len(problems_of(ON_GPU, cluster)) == 1
    small = "hardware={gpu_memory_gb: 0.2}"
    for problem in problems_of(ON_GPU, cluster, small, cluster=True):
        assert problem.startswith("training: finetune on organism-")
        assert "GPU eight has 0.2" in problem
    (none,) = problems_of(ON_GPU, cluster=True)
    assert none.startswith("hardware.gpus: 0")


def test_jobs_on_the_cpu_must_fit_into_memory(problems_of, monkeypatch):
    import psutil

    memory = psutil.virtual_memory()._replace(total=int(0.6 * GB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    problems = problems_of()
    assert any(problem.startswith("training: finetune on organism-llama") for problem in problems)
    assert all("this machine, for each of 2 jobs at once" in problem for problem in problems)


def test_an_engine_of_its_own_environment_needs_its_python(problems_of, tmp_path):
    engine = "generation={engine: vllm}"
    (problem,) = problems_of(engine)
    assert problem.startswith("runtime.vllm_python: null")
    (wrong,) = problems_of(engine, f"runtime={{vllm_python: {tmp_path}/python}}")
    assert "is no program" in wrong
    assert problems_of(engine, f"runtime={{vllm_python: {sys.executable}}}") == []


def test_a_library_that_is_missing_is_told_before_anything_else(problems_of):
    zero = "training={device: cuda, world_size: 2, sharding: zero3}"
    (problem,) = problems_of(zero)
    assert "training.sharding: 'zero3' needs deepspeed" in problem


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def check(repository, tmp_path, monkeypatch, capsys, no_openai_environment):
    """Function that runs `make check`'s command in a copy of what a config needs."""
    root = tmp_path / "root"
    shutil.copytree(repository / "config", root / "config")
    (root / "Snakefile").touch()
    (root / "resources").symlink_to(repository / "resources")
    monkeypatch.chdir(root)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["implicit_tuning", "check", *arguments])
        status = commands.main()
        return status, capsys.readouterr()

    return run


def test_the_command_says_what_was_looked_at(check):
    status, printed = check()
    assert (status, printed.err) == (0, "")
    assert "experiment 'organism', 205 nodes" in printed.out
    assert "sources to fetch: none" in printed.out
    assert "licence of datasets.organism-lima: MIT" in printed.out
    assert printed.out.endswith("no problems\n")


def test_all_problems_stand_in_one_list(check, nvidia_smi):
    # As on the command line: values in YAML.
    status, printed = check("--config", ON_GPU, "--config", served()[0], "--config", served()[1])
    assert status == 1
    assert "check: 2 problems" in printed.err
    assert "judges.served.api_key_env" in printed.err
    assert "no GPU is visible" in printed.err


def test_a_config_that_cannot_be_read_is_told_with_its_problems(check):
    status, printed = check("--config", "judge=oracel", "--config", "seeds=[]")
    assert status == 1
    assert "check: 1 problem" in printed.err
    assert "seeds" in printed.err
    status, printed = check("--config", "judge=oracel", "--config", "evaluation=nothing")
    assert "check: 2 problems" in printed.err
    assert "did you mean 'oracle'?" in printed.err


def test_what_needs_no_config_is_told_beside_its_problems(check, monkeypatch):
    Path("results").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    _, printed = check("--config", "judge=oracel")
    assert "check: 2 problems" in printed.err
    assert "results: 'results' cannot be written to" in printed.err


def test_licences_that_bind_are_marked(check):
    data = "adaptations={lima: {kind: finetune, data: lima}}"
    _, printed = check("--config", data)
    assert "licence of datasets.lima: CC-BY-NC-SA-4.0 (not for commercial use" in printed.out
