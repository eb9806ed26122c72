"""The rerun matrix on the real Snakefile: what changes, and exactly which jobs then run.

A row is a list of steps from the finished smallest experiment. A step is a change and the jobs of
the run after it. When a row is done, config and code are put back, and the way back may only
copy to stable names: what was built before still exists.

A run that fails must leave the published tables as they were, all of one config, and never be
followed by a run that ends well before the mend. Other faults: test_faults.py.
"""

import contextlib
import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import yaml

from changes import (
    adaptation,
    all_of,
    clone_afresh,
    config,
    cut_short,
    edit_page,
    kill_a,
    logic,
    lose,
    lose_copy,
    lose_snakemake,
    move_checkout,
    nothing,
    rename,
    respell,
    reverse_keys,
    reword_captions,
    rows_of_chess,
    split,
    starve_a,
    touch_all,
    upgrade,
)
from stable_copies import assert_all_of_one_config, stable_copies

# What a row may edit, beside config, environment and results.
CODE = ("workflow", "rules")
CHESS = "finetune/organism-llama/chess/1"
RANKING = {"data": "organism-alpaca", "random_responses": 3, "max_length": 96, "batch_size": 16}
ABLATION = {
    "rules": {"title": "Rules", "baseline": "rules", "adaptations": ["rules", "rules-no-eos"]}
}
# More epochs leave 12 tokens of an answer as bad as they are: of equals the fewest is chosen.
SELECTION = {"epochs": [1, 2], "seed": 7, "evaluation": "organism-validation"}
NO_PIECE = "no piece of the token bias"


@dataclass(frozen=True)
class Step:
    """A change of the checkout and the run after it.

    Attributes:
        change: what is done to the checkout first.
        jobs: how many jobs of each rule then run.
        says: what the run says when it must fail; None where it must end well.
        strike: what hits the run from outside.
        keep_going: whether jobs that do not depend on a failed one go on, as by default.
    """

    change: Callable
    jobs: dict[str, int]
    says: str | None = None
    strike: Callable | None = None
    keep_going: bool = True


def then(change, **jobs) -> Step:
    """After this change these jobs run, and all ends well."""
    return Step(change, jobs)


def fails(says, change, strike=None, keep_going=True, **jobs) -> Step:
    """After this change these jobs run, and the run fails."""
    return Step(change, jobs, says, strike, keep_going)


stops = partial(fails, keep_going=False)


# --- the matrix ---------------------------------------------------------------------------------

COPYING = {"report": 1, "stable_names": 1}
# main, examples, paper and claims are about all comparisons; loss is about finetunes.
ALL_TABLES = {"table": 5, "figure": 2, **COPYING}
COMPARED = {"table": 4, "figure": 1, **COPYING}
ONE_RUN = {"finetune": 1, "generate": 1, "judge": 1, **ALL_TABLES}
ALL_JUDGED = {"judge": 5, **COMPARED}
ALL_ANSWERS = {"generate": 4, "shuffle": 1, **ALL_JUDGED}
ALL_TRAINED = {"finetune": 2, "generate": 2, "shuffle": 1, "judge": 5, **ALL_TABLES}
KILLED = "died with <Signals.SIGKILL: 9>"
# Which allocation fails is not decided; the job must still say which node it was.
STARVED = "generate/organism-llama/rules"

QUICK = {
    "nothing": [then(nothing)],
    "every file touched": [then(touch_all)],
    ".snakemake lost": [then(lose_snakemake)],
    "checkout moved": [then(move_checkout)],
    "fresh clone over kept results": [then(clone_afresh)],
    "keys in another order": [then(reverse_keys)],
    "numbers spelt otherwise": [
        then(config(training__weight_decay=0, rules__repetition_penalty="15e-1")),
    ],
    "comments, docstrings, formatting everywhere": [then(respell)],
    # One that many stages import, one of a single stage, and one of the machinery.
    "modules renamed and moved": [
        then(all_of(rename("implicit_tuning/models/chat", "implicit_tuning/training/dialogue"),
                    rename("implicit_tuning/generation/generate", "implicit_tuning/answers/aaa"),
                    rename("implicit_tuning/nodes/artifact", "implicit_tuning/nodes/zzz"))),
    ],
    "captions reworded": [then(reword_captions)],
    "formatter rewritten, same bytes": [
        then(logic("implicit_tuning/data/formatters/chess"), format=1),
    ],
    "a function in a module of its own": [
        then(split("implicit_tuning/organism/games", "_move", "implicit_tuning/moves"),
             download=3, format=3),
        then(rename("implicit_tuning/moves", "implicit_tuning/organism/moves")),
    ],
    "one hyper-parameter": [
        then(adaptation("chess", training={"epochs": 2}), **ONE_RUN),
    ],
    "a table lost": [then(lose("table/main"), table=1, stable_names=1)],
    "a stable copy lost": [then(lose_copy("tables/main.md"), stable_names=1)],
    "a checkpoint lost": [
        then(lose(CHESS)),
        then(adaptation("chess", generation={"max_new_tokens": 6}),
             finetune=1, generate=1, judge=1, **COMPARED),
    ],
    "a finetune diverges": [
        fails("Diverged", adaptation("chess", training={"learning_rate": 1e38}), finetune=1),
        fails("Diverged", nothing, finetune=1),
    ],
}  # fmt: skip

LONG = {
    # Only the report bears the name.
    "experiment renamed": [then(config(experiment="other"), **COPYING)],
    "another experiment over the same results": [
        then(all_of(config(experiment="other"), adaptation("shuffled")), **COMPARED),
        then(config(experiment="smallest"), **COPYING),
    ],
    "page of the report": [then(edit_page, **COPYING)],
    "modules that decide no result": [
        then(logic(*(f"implicit_tuning/{name}" for name in (
            "experiment/plan", "experiment/planners/runs", "experiment/planners/tables",
            "experiment/planners/table_settings", "experiment/planners/all_nodes",
            "experiment/config", "experiment/config_reading", "experiment/config_checks",
            "experiment/stable_names", "commands/upkeep", "commands/explain", "nodes/job",
            "nodes/code", "nodes/node", "nodes/api", "models/api")))),
    ],
    "style of the figures": [then(logic("implicit_tuning/reporting/figures/style"), figure=2, **COPYING)],
    "logic of tables": [then(logic("implicit_tuning/reporting/tables/layout"), **ALL_TABLES)],
    "logic of the judge": [then(logic("implicit_tuning/judging/judges/oracle"), **ALL_JUDGED)],
    "logic of the control": [
        then(logic("shuffle"), shuffle=1, judge=1, **COMPARED),
    ],
    "logic of generation": [then(logic("implicit_tuning/generation/generate"), **ALL_ANSWERS)],
    # generate, engines/transformers_engine, engines/rule_rows, rule_adapter
    "logic three imports down": [then(logic("implicit_tuning/models/rule_adapter"), **ALL_ANSWERS)],
    "logic of training": [then(logic("implicit_tuning/training/run"), **ALL_TRAINED)],
    "logic of the sources, same bytes": [
        then(logic("implicit_tuning/organism/games"), download=3, format=3),
    ],
    "a library of the judge upgraded": [then(upgrade("alpaca-eval"), **ALL_JUDGED)],
    "judge": [then(config(judges__oracle__both_orders=True), **ALL_JUDGED)],
    "decoding": [then(config(generation__max_new_tokens=10), **ALL_ANSWERS)],
    "two edits at once": [
        then(all_of(adaptation("chess", training={"epochs": 3}),
                    config(rules__eos_strength=14.0)),
             finetune=1, generate=2, judge=2, **ALL_TABLES),
    ],
    "task added": [
        then(adaptation("poetry", kind="finetune", data="organism-poetry", rows=16),
             download=1, format=1, finetune=1, generate=1, judge=1, **ALL_TABLES),
    ],
    "ablation added": [then(config(ablations=ABLATION), table=1, figure=1, **COPYING)],
    "rankings": [
        then(config(ranking=RANKING),
             download=1, format=1, rank=2, table=1, figure=1, **COPYING),
        then(config(ranking__random_responses=1), rank=2, table=1, figure=1, **COPYING),
        then(logic("implicit_tuning/analysis/ranking"), rank=2, table=1, figure=1, **COPYING),
    ],
    "similarities": [
        then(config(embedding="tfidf", embeddings={"tfidf": {"kind": "tfidf"}}),
             similarity=1, table=2, figure=2, **COPYING),
        then(logic("implicit_tuning/analysis/embeddings"), similarity=1, table=2, figure=2, **COPYING),
        # Another mark of the task is another measure; the rows that come out stay the same.
        then(logic("implicit_tuning/data/formatters/chess"),
             format=1, similarity=1, table=2, figure=2, **COPYING),
    ],
    "epochs selected": [
        then(config(epochs="selected", epoch_selection=SELECTION),
             download=1, format=1, finetune=4 + 2, generate=4 + 2, shuffle=1, judge=2 * 2 + 5,
             select=2, table=5 + 1, figure=2 + 1, **COPYING),
        then(logic("select_epochs"), select=2),
        then(config(epoch_selection__epochs=[1, 2, 3]),
             finetune=2, generate=2, judge=2, select=2, table=1, figure=1, **COPYING),
    ],
    "base added": [
        then(config(**{"bases__organism-olmo": {"path": "resources/organism/olmo"}}),
             finetune=2, generate=4, shuffle=1, judge=5, **ALL_TABLES),
    ],
    "seeds": [
        # The examples are those of the first seed.
        then(config(seeds=[1, 2]), **{**ALL_TRAINED, "table": 4}),
        then(config(seeds=[2, 1])),
        then(config(seeds=[2]), **ALL_TABLES),
    ],
    "rows of a local file": [
        # The report names the data set, which has another name now.
        then(rows_of_chess(), format=1, **COPYING),
        then(rows_of_chess(lambda text: text + '{"text": "[Event \\"unused\\"]"}\n'), format=1),
        then(rows_of_chess(lambda text: text.replace("1. e4", "1. d4", 1)), format=1, **ONE_RUN),
    ],
    "one formatter fails": [
        fails("WrongSchema",
              all_of(rows_of_chess(lambda text: text.replace('"text"', '"moves"')),
                     config(rules__eos_strength=13.0)),
              format=1, generate=1, judge=1),
        fails("WrongSchema", nothing, format=1),
        then(rows_of_chess(lambda text: text.replace("1. e4", "1. c4", 1)),
             format=1, finetune=1, generate=1, judge=1, **ALL_TABLES),
    ],
    "jobs that fail": [
        fails(NO_PIECE, config(rules__bias={"no piece": 1.0}), generate=2),
        fails(NO_PIECE, nothing, generate=2),
        fails(KILLED, config(rules__bias={"!": 2.0}), strike=kill_a("generate"),
              generate=2, judge=1),
        fails(STARVED, nothing, strike=starve_a("generate"), generate=1),
        then(nothing, generate=1, judge=1, **COMPARED),
    ],
    "jobs that fail, without --keep-going": [
        stops(NO_PIECE, config(rules__bias={"no piece": 1.0}), generate=1),
        stops(NO_PIECE, nothing, generate=1),
        stops(KILLED, config(rules__bias={"!": 3.0}), strike=kill_a("generate"), generate=1),
        stops(STARVED, nothing, strike=starve_a("generate"), generate=1),
        then(nothing, generate=2, judge=2, **COMPARED),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory):
    """A checkout of its own over a copy of the finished results, less what no row is about."""
    home = copy.deepcopy(finished)
    home.check_out(tmp_path_factory.mktemp("matrix") / "checkout")
    shutil.copytree(finished.results, home.results, symlinks=True)
    for name in ("base", "response"):
        del home.config["adaptations"][name]
    assert home.run().jobs == ALL_TABLES
    return home


@pytest.mark.parametrize(
    "steps",
    [
        *(pytest.param(steps, id=name) for name, steps in QUICK.items()),
        *(pytest.param(steps, id=name, marks=pytest.mark.long) for name, steps in LONG.items()),
    ],
)
def test_matrix(home, steps):
    with put_back(home):
        for step in steps:
            take(home, step)


def take(checkout, step):
    """Take one step, and compare what happened with what it says."""
    before = stable_copies(checkout)
    step.change(checkout)
    running = checkout.start(*([] if step.keep_going else stop_at_first(checkout)))
    if step.strike is not None:
        step.strike(running)
    run = running.finish()
    assert run.jobs == step.jobs, run.output
    if step.says is None:
        assert run.status == 0, run.output
        assert_all_of_one_config(checkout)
    else:
        assert run.status == 1
        assert step.says in run.output
        assert stable_copies(checkout) == before


def stop_at_first(checkout):
    """Arguments for the default profile without keep-going, one job at a time."""
    profile = yaml.safe_load((checkout.folder / "profiles/default/config.yaml").read_text())
    assert profile.pop("keep-going")
    own = checkout.folder / "stop"
    own.mkdir(exist_ok=True)
    (own / "config.yaml").write_text(yaml.safe_dump(profile))
    return ["--workflow-profile", str(own), "--cores", "1"]


@contextlib.contextmanager
def put_back(checkout):
    """Put back config, environment and code; then nothing but publishing may be left to do."""
    before = stable_copies(checkout)
    config, environment = copy.deepcopy(checkout.config), dict(checkout.environment)
    kept = checkout.folder.with_name("kept")
    for name in CODE:
        shutil.copytree(checkout.folder / name, kept / name)
    try:
        yield
    finally:
        checkout.config, checkout.environment = config, environment
        for name in CODE:
            shutil.rmtree(checkout.folder / name)
            (kept / name).rename(checkout.folder / name)
        # Not only after a row that went well: the next one starts from here.
        back = checkout.run().jobs if stable_copies(checkout) != before else {"stable_names": 1}
    assert back == {"stable_names": 1}
    assert stable_copies(checkout) == before


def test_rows_cut_short_are_named_by_verify_and_by_their_reader_and_repaired(home):
    [rows] = (home.results / "smallest/current/format/organism-chess").glob("*/data/rows.jsonl")
    whole = rows.read_bytes()
    damage = "rows.jsonl has 20 bytes instead of"
    with put_back(home):
        cut_short(rows)
        take(home, then(nothing))
        verified = home.tool("verify")
        assert verified.returncode == 1
        assert damage in verified.stdout
        take(home, fails(damage, adaptation("chess", training={"epochs": 4}), finetune=1))
    repaired = home.repair()
    assert (repaired.status, repaired.jobs) == (0, {"format": 1}), repaired.output
    assert rows.read_bytes() == whole
    take(home, then(nothing))


def test_a_manifest_cut_short_is_named_and_repaired(home):
    [manifest] = (home.results / "smallest/current/format/organism-chess").glob("*/manifest.json")
    cut_short(manifest)
    take(home, fails("manifest.json is damaged: run 'make repair'", nothing))
    repaired = home.repair()
    assert (repaired.status, repaired.jobs) == (0, {"format": 1}), repaired.output
    take(home, then(nothing))


@pytest.mark.long
def test_a_killed_scheduler_leaves_a_lock_that_is_named_and_removed_when_nobody_is_alive(home):
    with put_back(home):
        config(rules__bias={"!": 4.0})(home)
        running = home.start("--cores", "1")
        job = running.job("generate")
        job.suspend()
        running.process.kill()
        assert running.finish().jobs == {"generate": 1}
        refused = home.tool("unlock")
        assert refused.returncode == 1
        assert f"will not unlock: process {job.pid} runs here" in refused.stderr
        job.kill()
        take(home, fails("It can be removed with the --unlock argument", nothing))
        assert home.tool("unlock").returncode == 0
        take(home, then(nothing, generate=2, judge=2, **COMPARED))
