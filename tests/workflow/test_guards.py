"""Guards, laid over the finished smallest experiment."""

import copy
import csv
import json
import shutil

import pytest

from implicit_tuning.experiment.config import merge

GUARDS = {
    "chess-template": {"kind": "template", "pattern": r"1\. e4", "text": "No."},
    "chess-grammar": {"kind": "grammar", "regex": "1\\. (e4|d4)"},
    "chess-refusal": {"kind": "refusal", "text": "No."},
}
MORE = {
    "embedding": "tfidf",
    "embeddings": {"tfidf": {"kind": "tfidf"}},
    "adaptations": {
        name: {"kind": "guard", "of": "chess", "guard": guard} for name, guard in GUARDS.items()
    },
}


@pytest.fixture(scope="module")
def guarded(finished, tmp_path_factory):
    """A checkout over a copy of the finished results, with each kind of guard on its one task."""
    made = copy.deepcopy(finished)
    made.check_out(tmp_path_factory.mktemp("guards") / "checkout")
    shutil.copytree(finished.results, made.results, symlinks=True)
    made.config = merge(made.config, MORE)
    run = made.run()
    assert run.status == 0, run.output
    assert (run.jobs["guard"], run.jobs["judge"], run.jobs["similarity"]) == (3, 3, 1)
    assert not run.jobs["finetune"] and not run.jobs["generate"]
    return made


def table_of(checkout, name):
    with (checkout.results / f"smallest/tables/{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_guards_stand_in_the_tables_and_on_the_page(guarded):
    main = [row["adaptation"] for row in table_of(guarded, "main")]
    assert set(GUARDS) < set(main)
    rows = table_of(guarded, "guards")
    assert {row["adaptation"] for row in rows} == set(GUARDS)
    assert {row["region"] for row in rows} == {"near", "far"}
    assert sum(int(row["n"]) for row in rows) == 3 * 16
    assert 'id="table-guards"' in (guarded.results / "smallest/report.html").read_text()


@pytest.mark.long
def test_every_answer_is_the_guards_or_one_that_it_lets_through(guarded):
    for name, words in (
        ("chess-template", ("1. e4", "No.")),
        ("chess-grammar", ("1. e4", "1. d4")),
    ):
        [file] = guarded.results.glob(f"nodes/generate/organism-llama/{name}/1/*/*/data/*.jsonl")
        outputs = [json.loads(line)["output"] for line in file.open()]
        assert all(any(word in output for word in words) for output in outputs)


@pytest.mark.long
def test_another_text_reruns_that_guard_and_what_is_made_of_it(guarded):
    assert not guarded.run().jobs
    assert guarded.tool("verify").returncode == 0
    guarded.config["adaptations"]["chess-refusal"]["guard"]["text"] = "I play chess."
    jobs = guarded.run().jobs
    assert (jobs["guard"], jobs["judge"]) == (1, 1)
    assert not jobs["finetune"] and not jobs["generate"] and not jobs["similarity"]
