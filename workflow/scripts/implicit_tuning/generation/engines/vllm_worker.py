"""Decodes with vLLM, in vLLM's environment, for the engine that started it (`vllm_engine`).

    python -m implicit_tuning.generation.engines.vllm_worker job.json

job.json has "model", "dtype", "batch_size", "context", "ends" and "rules" (null, or what
`vllm_rules` needs). Each line of standard input asks for one file of prompts to be answered; each
line of standard output is a JSON object: {"ready": versions} first, {"answered": file} for each
request, or {"refused": message}, after which it ends. All that is printed goes to standard error.

Untested on a GPU: tests/unit/generation/engines/test_vllm_engine.py runs it with a stand-in for vLLM, and with vLLM
itself where IMPLICIT_TUNING_VLLM_PYTHON names its interpreter.
"""

import importlib.metadata
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import LLM

VLLM_VERSION = "0.33.0"
# What vLLM reads when it is imported.
ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "1",  # the interface of `vllm_rules`
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its scheduler in this process: the same batches always
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Refused(ValueError):
    """This environment or machine cannot do the job; the message says why."""


def serve(job: Mapping[str, Any]) -> None:
    """Load the model and answer requests until standard input ends."""
    # Whatever vLLM and its libraries print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        require_version()
        os.environ.update(ENVIRONMENT)
        model = load(job)
    except Refused as refusal:
        print(json.dumps({"refused": str(refusal)}), file=answers)
        return
    versions = {name: importlib.metadata.version(name) for name in ("vllm", "torch")}
    print(json.dumps({"ready": versions}), file=answers)
    for prompts in _requests():
        print(json.dumps({"answered": str(answer(prompts, model, job))}), file=answers)


def require_version() -> None:
    """Raises Refused unless this environment has the version of vLLM that was planned with."""
    try:
        found = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        raise Refused(f"{sys.executable} has no vllm: {_install()}") from None
    if found != VLLM_VERSION:
        raise Refused(f"{sys.executable} has vllm {found} instead of {VLLM_VERSION}: {_install()}")


def load(job: Mapping[str, Any]) -> "LLM":
    """The model of a job.

    Raises:
        Refused: vLLM sees no GPU.
    """
    from vllm import LLM
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        raise Refused("vLLM sees no CUDA GPU here: set generation.engine to 'transformers'")
    rules = {}
    if job["rules"] is not None:
        from implicit_tuning.generation.engines.vllm_rules import RuleProcessor

        rules = {"logits_processors": [RuleProcessor], "additional_config": job["rules"]}
    return LLM(
        model=job["model"],
        dtype=job["dtype"],
        max_num_seqs=job["batch_size"],
        max_model_len=job["context"],
        # Texts are made into tokens and back by who asks.
        skip_tokenizer_init=True,
        # No sampling settings of the model folder.
        generation_config="vllm",
        load_format="safetensors",
        enable_prefix_caching=False,
        seed=0,
        **rules,
    )


def answer(prompts: Path, model: "LLM", job: Mapping[str, Any]) -> Path:
    """Answer a file of prompts, each line `{"input_ids": [...], "room": int}`.

    Returns:
        The file of answers beside it: each line the token ids of one, in the same order.
    """
    from tqdm import tqdm
    from vllm import SamplingParams

    items = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    greedy = [
        SamplingParams(
            temperature=0.0,
            max_tokens=item["room"],
            stop_token_ids=job["ends"],
            ignore_eos=True,  # of the model folder, which may name others
            detokenize=False,
            extra_args={"rules": job["rules"] is not None},
        )
        for item in items
    ]
    outputs = model.generate(
        [{"prompt_token_ids": item["input_ids"]} for item in items],
        greedy,
        use_tqdm=partial(tqdm, mininterval=5.0),  # seconds: each refresh is a line of the log
    )
    replies = [json.dumps(list(output.outputs[0].token_ids)) + "\n" for output in outputs]
    destination = prompts.with_suffix(".answers.jsonl")
    destination.write_text("".join(replies), encoding="utf-8")
    return destination


def _requests() -> Iterator[Path]:
    """Files of prompts as they are asked for.

    When the asker ends or is killed, this process ends too, whatever it is at: a model that nobody
    waits for would hold the GPU.
    """
    waiting: SimpleQueue[Path] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            waiting.put(Path(line.rstrip("\n")))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield waiting.get()


def _install() -> str:
    return (
        "make the environment with 'conda env create -f environment-vllm.yml' and name its "
        "interpreter in runtime.vllm_python"
    )


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
