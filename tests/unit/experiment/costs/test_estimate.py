"""What a plan says that it will take: work, time, disk, calls and money."""

import json
import math
import shutil

import pytest

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.costs.assumptions import ASSUMPTIONS, Assumed
from implicit_tuning.experiment.costs.cost_table import describe_costs
from implicit_tuning.experiment.costs.estimate import estimate_costs
from implicit_tuning.experiment.costs.hardware import hardware_of
from implicit_tuning.experiment.costs.model_sizes import Shape, read_shape
from implicit_tuning.experiment.costs.rates import Rates
from implicit_tuning.experiment.costs.workload import Work, Workload
from implicit_tuning.experiment.plan import is_built
from implicit_tuning.remote.lockfile import Pin, PinnedFile
from planned import COUNTS, PAPER, SMALLEST, build, plan_of

LLAMA_7B = {
    "parameters": 6738415616,
    "layers": 32,
    "width": 4096,
    "kv_width": 4096,
    "vocabulary": 32000,
}
LLAMA_BASE = ("organism-llama", "base", "none")
ONE_GPU = (
    "hardware={name: one GPU, gpus: 1, gpu_memory_gb: 80, gpu_tflops: 1000, "
    "gpu_bandwidth_gb_per_s: 3000, cores: 4, usd_per_gpu_hour: 2.5}"
)
ON_GPU = "training={device: cuda, compute_dtype: bfloat16}"
SERVED = (
    "judges={served: {kind: openai, model: m, usd_per_million_input_tokens: 10.0, "
    "usd_per_million_output_tokens: 30.0, max_usd: 5.0}}"
)


@pytest.fixture
def planned(repository, tmp_path):
    """Function that plans the default experiment under overrides of its config."""

    def make(*overrides, **options):
        return plan_of(repository, tmp_path, *overrides, **options)

    return make


@pytest.fixture
def costs_of(planned):
    """Function that estimates the default experiment under overrides of its config."""

    def estimate(*overrides, **options):
        return estimate_costs(*planned(*overrides, **options))

    return estimate


def by_stage(costs):
    return {stage.stage: stage for stage in costs.stages}


def work_of(planned, stage, levels, *overrides):
    plan, paths = planned(*overrides)
    return Workload(plan, paths, Assumed()).of(plan.find(stage, levels))


def test_the_organism_costs_minutes_on_two_cores(costs_of):
    costs = costs_of("hardware={cores: 2}")
    # It took 7.5 minutes.
    assert costs.wall_seconds == pytest.approx(450, rel=0.4)
    assert (costs.grid.finetunes, costs.grid.answers, costs.grid.comparisons) == (
        28,
        # 28 runs, and a base with four ways of its rules for each of two bases.
        208 * (28 + 10),
        52,
    )


def test_the_paper_is_counted_without_anything_on_disk(costs_of, tmp_path):
    costs = costs_of(files=PAPER)
    assert not (tmp_path / "results").exists()
    assert costs.grid.finetunes == by_stage(costs)["finetune"].waiting
    assert costs.grid.answers > 80_000
    assert by_stage(costs)["finetune"].gpu_hours > 1
    assert costs.wall_seconds > 3600
    assert costs.storage.peak > 100e9


def test_a_trained_token_costs_six_operations_a_parameter(planned):
    levels = ("organism-llama", "mbpp", "1")
    rows = "datasets={organism-mbpp: {rows: 100, tokens_per_row: 50}}"
    work = work_of(planned, "finetune", levels, rows, "training={epochs: 3}")
    parameters = 885_888
    assert work.trained == 100 * 50 * 3
    assert work.flops == 6 * parameters * work.trained
    lean = work_of(planned, "finetune", levels, rows, "training={activation_checkpointing: true}")
    assert lean.flops == 8 * parameters * lean.trained
    lora = "{rank: 4, alpha: 8, dropout: 0.0, target_modules: all-linear}"
    adapters = work_of(planned, "finetune", levels, rows, f"training={{lora: {lora}}}")
    assert adapters.flops == 4 * parameters * adapters.trained


def test_rows_are_cut_at_the_longest(planned):
    rows = "datasets={organism-mbpp: {rows: 100, tokens_per_row: 5000}}"
    work = work_of(planned, "finetune", ("organism-llama", "mbpp", "1"), rows)
    assert work.trained == 100 * 192 * 2


def test_epochs_that_are_not_chosen_yet_are_the_mean_of_the_choices(planned):
    plan, paths = planned("epochs=selected", "epoch_selection={epochs: [1, 3, 8]}")
    assumed = Assumed()
    run = plan.find("finetune", ("organism-llama", "mbpp", "1"))
    assert Workload(plan, paths, assumed).epochs(run) == 4
    assert any("4 epochs" in line for line in assumed.lines())
    build(paths, run.upstream["epochs"], epochs=3)
    assert Workload(plan, paths, Assumed()).epochs(run) == 3


def test_the_rows_of_the_organism_are_counted_before_they_are_written(planned):
    plan, paths = planned()
    sizes = Workload(plan, paths, Assumed()).sizes
    # The games stand in more lines than there are games.
    assert sizes.rows(plan.find("format", ("organism-chess", "plain"))) == 400
    assert sizes.rows(plan.find("format", ("organism-evaluation", "plain"))) == 208


def test_formatted_rows_are_counted_in_the_tokens_of_the_base(planned):
    plan, paths = planned("datasets={organism-mbpp: {tokens_per_row: 999}}")
    rows, base = plan.find("format", ("organism-mbpp", "plain")), None
    base = plan.find("finetune", ("organism-llama", "mbpp", "1")).upstream["base"]
    turns = [("user", "Name a colour."), ("assistant", "Blue.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    line = json.dumps({"messages": messages, "source_row": 1}) + "\n"
    notes = {"instruction_characters": 14 * 7, "response_characters": 5 * 7}
    build(paths, rows, {"rows.jsonl": line * 7}, used=7, notes=notes)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base.path / "tokenizer.json"))
    text = "<|user|>\nName a colour.\n<|assistant|>\nBlue.\n"
    sizes = Workload(plan, paths, Assumed()).sizes
    assert sizes.rows(rows) == 7
    assert sizes.row_tokens(rows, base) == pytest.approx(len(tokenizer.encode(text).ids))


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_damaged_base_is_named(planned, repository, tmp_path, name):
    folder = shutil.copytree(repository / "resources/organism/llama", tmp_path / "base")
    (folder / name).write_bytes((folder / name).read_bytes()[:500])
    plan, paths = planned(f"bases={{organism-llama: {{path: {folder}}}}}")
    finetune = plan.find("finetune", ("organism-llama", "gsm8k", "1"))
    line = json.dumps({"messages": [{"role": "user", "content": "One?"}]}) + "\n"
    build(paths, finetune.above("rows"), {"rows.jsonl": line}, **COUNTS)
    with pytest.raises(ConfigError, match=f"{folder / name} cannot be read .*: restore it"):
        estimate_costs(plan, paths)


def test_answers_that_stand_are_counted(planned):
    plan, paths = planned()
    generation = plan.find("generate", ("organism-llama", "base", "none", "organism-evaluation"))
    sizes = Workload(plan, paths, Assumed()).sizes
    # Nothing ends the text of a base; the rule of EOS ends it with its ramp.
    assert sizes.answer_tokens(generation) == 80
    ruled = plan.find("generate", ("organism-llama", "rules", "none", "organism-evaluation"))
    assert sizes.answer_tokens(ruled) == 60
    build(paths, generation, n=208, n_tokens=208 * 11)
    assert Workload(plan, paths, Assumed()).sizes.answer_tokens(generation) == 11


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(), 1.7),
        # 50 GFLOPS of each of two cores, 20 GB/s.
        (Work(engine="transformers", flops=7e11), 5 + 7),
        (Work(engine="transformers", flops=7e11, processes=2), 5 + 3.5),
        (Work(engine="transformers", flops=1e9, moved_bytes=60e9), 5 + 3),
        # 40 % of 1,000 TFLOPS, 60 % of 3,000 GB/s.
        (Work("cuda", engine="transformers", flops=4e17), 20 + 1000),
        (Work("cuda", engine="transformers", flops=4e17, processes=2), 20 + 500),
        (Work("cuda", engine="vllm", flops=4e14, moved_bytes=1.8e15), 90 + 1000),
        (Work("cuda", engine="vllm", flops=4e17, moved_bytes=1.8e14), 90 + 1000),
        (Work("cuda", engine="transformers", flops=4e14, layer_steps=1e4), 20 + 1 + 6),
        (Work(disk_bytes=3e9), 1.7 + 3),
        (Work(network_bytes=100e6), 1.7 + 2),
        (Work(calls_at_a_time=5), 1.7 + 10),
    ],
)
def test_seconds_are_work_over_assumed_rates(planned, work, seconds):
    plan, _ = planned(ONE_GPU)
    rates = Rates(hardware_of(plan.config.hardware), threads=2, assumed=Assumed())
    assert rates.seconds(plan.stage("finetune")[0], work) == pytest.approx(seconds)


def test_hours_of_gpus_have_their_price(costs_of):
    costs = costs_of(ONE_GPU, ON_GPU)
    hours = sum(stage.gpu_hours for stage in costs.stages)
    assert hours > 28 * 20 / 3600
    assert by_stage(costs)["finetune"].cpu_hours == 0
    assert costs.gpu_usd == pytest.approx(2.5 * hours)
    assert "USD at 2.5 an hour" in describe_costs(costs)


def test_without_gpus_their_time_is_not_made_up(costs_of):
    costs = costs_of(ON_GPU)
    assert costs.wall_seconds is None
    assert math.isnan(by_stage(costs)["finetune"].gpu_hours)
    text = describe_costs(costs)
    assert "wall time: not known" in text
    assert "gpu_tflops" in text


def test_finished_jobs_of_the_same_kind_tell_how_long_the_others_take(planned):
    rows = ("lima", "mbpp", "gsm8k", "poetry", "recipes", "chess")
    lengths = [f"datasets={{organism-{name}: {{tokens_per_row: 50}}}}" for name in rows]
    plan, paths = planned(*lengths)
    before = by_stage(estimate_costs(plan, paths))
    build(paths, plan.find("finetune", ("organism-llama", "mbpp", "1")), seconds=1000.0)
    costs = estimate_costs(plan, paths)
    after = by_stage(costs)
    assert after["finetune"].waiting == 27
    assert after["finetune"].cpu_hours == pytest.approx(27 * 1000 / 3600, rel=0.5)
    assert after["generate"] == before["generate"]
    (known,) = costs.measured.items()
    assert known[0] == ("finetune", "cpu", "transformers")
    assert known[1].jobs == 1
    assert "measured: finetune with transformers on cpu, 1 finished jobs" in describe_costs(costs)


def test_a_run_of_other_settings_tells_nothing(planned):
    plan, paths = planned()
    build(paths, plan.find("finetune", ("organism-llama", "mbpp", "1")), seconds=1000.0)
    assert not estimate_costs(*planned("training={epochs: 3}")).measured
    # The same settings over other rows do.
    other = planned("datasets={organism-mbpp: {max_characters: 5000}}")
    assert estimate_costs(*other).measured


def test_what_stands_costs_nothing(planned):
    plan, paths = planned(files=SMALLEST)
    for node in plan.nodes.values():
        if not is_built(paths, node):
            build(paths, node, **COUNTS)
    costs = estimate_costs(plan, paths)
    assert costs.wall_seconds == 0
    assert costs.storage.peak == 0
    assert describe_costs(costs).endswith("nothing to do")


def test_every_checkpoint_lies_on_disk_unless_they_are_given_up(costs_of):
    size = 4 * 885_888
    kept = costs_of().storage
    assert kept.n_checkpoints == 28
    assert kept.checkpoints == pytest.approx(28 * size, rel=0.01)
    given_up = costs_of("runtime={keep_checkpoints: false}").storage
    assert given_up.n_checkpoints == 8
    assert given_up.checkpoints == pytest.approx(8 * size, rel=0.01)


def test_a_run_of_7b_saves_80_gb_and_needs_it_twice(planned):
    base = f"{{path: resources/organism/llama, shape: {json.dumps(LLAMA_7B)}}}"
    plan, paths = planned(ONE_GPU, ON_GPU, f"bases={{organism-llama: {base}}}")
    storage = estimate_costs(plan, paths).storage
    assert storage.n_states == 1
    assert storage.states == 2 * 12 * LLAMA_7B["parameters"]
    lora = "training={lora: {rank: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}}"
    plan, paths = planned(ONE_GPU, ON_GPU, lora, f"bases={{organism-llama: {base}}}")
    assert estimate_costs(plan, paths).storage.states < 2e9


def test_calls_are_those_without_a_kept_verdict(planned):
    plan, paths = planned("judge=served", SERVED)
    (calls,) = estimate_costs(plan, paths).calls
    assert (calls.who, calls.calls, calls.kept) == ("judges.served", 52 * 208, 0)
    node = plan.stage("judge")[0]
    cache = paths.cache(node)
    cache.parent.mkdir(parents=True)
    cache.write_text("{}\n" * 200)
    (fewer,) = estimate_costs(plan, paths).calls
    assert (fewer.calls, fewer.kept) == (52 * 208 - 200, 200)
    assert fewer.usd < calls.usd


def test_the_price_is_that_of_estimated_tokens(costs_of):
    stated = "datasets={organism-evaluation: {tokens_per_row: 35}}"
    (calls,) = costs_of("judge=served", SERVED, stated).calls
    # 315 tokens of the prompt, 35 of the instruction, at most 2 x 80 of answers; one of the reply.
    most = 52 * 208 * ((315 + 35 + 160) * 10 + 30) / 1e6
    assert calls.most_usd == pytest.approx(most)
    assert 0.6 * most < calls.usd < most
    text = describe_costs(costs_of("judge=served", SERVED, stated))
    assert "judges.served: 10,816 calls" in text
    assert "max_usd stops at 5.00" in text


def test_a_judge_that_asks_in_both_orders_asks_twice(costs_of):
    both = "judges={served: {kind: openai, model: m, both_orders: true}}"
    (calls,) = costs_of("judge=served", both).calls
    assert calls.calls == 2 * 52 * 208
    assert calls.usd is None


def test_two_ways_to_format_share_their_rewrites(costs_of):
    rows = "kind: finetune, data: organism-lima, rephrase: other"
    (calls,) = costs_of(
        "rewriters={other: {kind: openai, model: m}}",
        f"adaptations={{one: {{{rows}}}, two: {{{rows}, instructions: blank}}}}",
    ).calls
    assert (calls.who, calls.calls) == ("rewriters.other", 40)


def test_an_answer_ends_with_the_context_of_its_model(planned):
    levels = ("organism-llama", "base", "none", "organism-evaluation")
    stated = "datasets={organism-evaluation: {tokens_per_row: 40}}"
    plan, paths = planned(stated, "generation={max_new_tokens: 5000}")
    workload = Workload(plan, paths, Assumed())
    assert workload.room(plan.find("generate", levels)) == 192 - 40
    # Two batches of 112.
    assert workload.of(plan.find("generate", levels)).layer_steps == 2 * (192 - 40) * 4


def test_a_model_of_unknown_size_is_named(costs_of):
    judge = (
        "{kind: hf_logits, hub: {repo: owner/judge}, batch_size: 1, dtype: float32, device: cpu}"
    )
    text = describe_costs(costs_of("judge=local", f"judges={{local: {judge}}}"))
    assert "assumed: no work for owner/judge, whose size is not known until 'make lock'" in text
    assert "1 sources of unknown size" in text


def test_a_model_that_is_locked_has_the_size_of_its_files(planned):
    judge = (
        "{kind: hf_logits, hub: {repo: owner/judge}, batch_size: 1, dtype: float32, device: cpu}"
    )
    files = {
        "model.safetensors": PinnedFile("0" * 64, 2_000_000),
        "a.json": PinnedFile("0" * 64, 9),
    }
    lock = {"models/owner/judge@main": Pin("c" * 40, files)}
    stated = "datasets={organism-evaluation: {tokens_per_row: 35}}"
    plan, paths = planned("judge=local", f"judges={{local: {judge}}}", stated, lock=lock)
    node = plan.find("judge", (*LLAMA_BASE, "organism-evaluation", "1", "local"))
    work = Workload(plan, paths, Assumed()).of(node)
    assert work.scored > 2 * 208 * (315 + 35 + 80)
    assert work.flops == 2 * 1e6 * work.scored
    assert estimate_costs(plan, paths).storage.downloads == 2_000_009


def test_each_assumption_is_printed_once_with_its_number(costs_of):
    lines = describe_costs(costs_of()).splitlines()
    assumed = [line for line in lines if line.startswith("assumed: ")]
    assert len(assumed) == len(set(assumed)) > 3
    assert any("50 GFLOPS" in line for line in assumed)
    # None of GPUs, where there are none.
    assert not any("GPU" in line for line in assumed)
    assert all(text.format(value) for value, text in ASSUMPTIONS.values())


def test_the_table_begins_with_counts_by_stage(costs_of):
    header, *lines = describe_costs(costs_of()).splitlines()
    assert header.split()[:5] == ["stage", "nodes", "built", "to", "do"]
    counts = {line.split()[0]: line.split()[1:4] for line in lines if line}
    assert counts["finetune"] == ["28", "0", "28"]
    assert counts["all"] == ["205", "0", "205"]


def test_the_shape_of_a_model_is_read_from_its_folder(repository):
    shape = read_shape(repository / "resources/organism/llama")
    assert shape == Shape(
        parameters=885_888, layers=4, width=128, kv_width=128, vocabulary=1024, context=192
    )


def test_a_base_that_is_pretrained_has_the_shape_of_its_recipe(planned):
    plan, paths = planned("pretrain_base=rebuild")
    pretrain = plan.find("pretrain", ("organism-llama",))
    shape = Workload(plan, paths, Assumed()).shape(pretrain)
    assert shape.parameters == pytest.approx(885_888, rel=0.01)
    assert (shape.layers, shape.width, shape.vocabulary) == (4, 128, 1024)
