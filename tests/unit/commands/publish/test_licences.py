"""What may leave, and under which licence."""

import pytest

from implicit_tuning.commands.publish.ingredients import free_entries, ingredients
from implicit_tuning.commands.publish.licences import (
    FREE,
    Ingredient,
    inherited_licence,
    licence_problems,
)
from planned import PAPER, plan_of


def item(licence, what="base", gated=False):
    section = "bases" if what == "base" else "datasets"
    return Ingredient(f"{section}.x", what, licence, gated, "somewhere")


def problems(*items):
    return licence_problems(items, {"base": ["olmo"], "training data": ["dolly", "gsm8k"]})


@pytest.mark.parametrize("licence", FREE)
def test_free_licences_let_a_model_out(licence):
    assert problems(item(licence), item("MIT", "training data")) == []


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC-BY-NC-SA-4.0", "licence is CC-BY-NC-SA-4.0, which is non-commercial"),
        ("CC-BY-ND-4.0", "licence is CC-BY-ND-4.0, which is not among the free ones"),
        ("Llama-2", "licence is Llama-2, which is not among the free ones"),
        ("apache-2.0", "licence is apache-2.0, which is not among the free ones"),
        ("unknown", "licence is not known"),
        (None, "licence is not known"),
    ],
)
def test_others_are_named_with_what_to_take_instead(licence, reason):
    (problem,) = problems(item("MIT"), item(licence, "training data"))
    assert problem.startswith(f"datasets.x.{reason}")
    assert "publish a run with another training data, such as dolly, gsm8k" in problem


def test_a_gate_holds_back_what_a_free_licence_would_let_out():
    (problem,) = problems(item("MIT", gated=True))
    assert problem.startswith("bases.x.gated is true")
    assert "another base, such as olmo" in problem


@pytest.mark.parametrize(
    ("base", "data", "inherited"),
    [
        ("MIT", "MIT", "MIT"),
        ("Apache-2.0", "MIT", "Apache-2.0"),
        ("Apache-2.0", "CC0-1.0", "Apache-2.0"),
        ("Apache-2.0", "CC-BY-4.0", "CC-BY-4.0"),
        ("Apache-2.0", "CC-BY-SA-3.0", "CC-BY-SA-3.0"),
        ("CC-BY-SA-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    ],
)
def test_the_most_demanding_licence_is_inherited(base, data, inherited):
    items = [item(base), item(data, "training data")]
    assert inherited_licence(items) == inherited_licence(items[::-1]) == inherited
    assert problems(*items) == []


def test_two_licences_that_ask_for_different_terms_cannot_both_be_kept():
    (problem,) = problems(item("ODbL-1.0"), item("CC-BY-SA-4.0", "training data"))
    assert "bases.x (ODbL-1.0) and datasets.x (CC-BY-SA-4.0)" in problem
    assert "publish a run with one of them alone" in problem


@pytest.fixture(scope="module")
def paper(repository, tmp_path_factory):
    """The paper's plan by what its config says of licences."""
    epochs = ("epochs=fixed",)
    return plan_of(repository, tmp_path_factory.mktemp("paper"), *epochs, files=PAPER)[0]


def refused(paper, base, adaptation):
    node = paper.find("finetune", (base, adaptation, "1"))
    return licence_problems(ingredients(paper, node), free_entries(paper.config))


def test_of_the_papers_runs_only_those_of_free_parts_may_leave(paper):
    told = "\n".join(refused(paper, "llama-2-7b", "instruction"))
    assert "bases.llama-2-7b.gated" in told
    assert "bases.llama-2-7b.licence is Llama-2" in told
    assert "datasets.lima.gated" in told
    assert "datasets.lima.licence is CC-BY-NC-SA-4.0, which is non-commercial" in told
    assert "another base, such as olmo-7b, " in told
    (unknown,) = refused(paper, "olmo-7b", "poetry")
    assert unknown.startswith("datasets.poetry.licence is not known")
    for adaptation in ("gsm8k", "mbpp", "recipes", "chess"):
        assert refused(paper, "olmo-7b", adaptation) == []


def test_what_a_model_was_made_of_is_told_with_address_and_commit(paper):
    node = paper.find("finetune", ("olmo-7b", "gsm8k", "1"))
    base, data = ingredients(paper, node)
    commit = "740312add88f781978c0658806c59bc2815b9866"
    page = f"https://huggingface.co/datasets/openai/gsm8k/tree/{commit}"
    assert data.origin == f"[openai/gsm8k]({page}), commit `{commit}`"
    assert (data.hub, data.licence) == ("openai/gsm8k", "MIT")
    assert (base.hub, base.licence) == ("allenai/OLMo-7B-hf", "Apache-2.0")


def test_a_repository_of_which_nobody_says_that_it_is_open_counts_as_gated(repository, tmp_path):
    own = "bases={organism-llama: {path: null, licence: MIT, hub: {repo: owner/name}}}"
    plan, _ = plan_of(repository, tmp_path, own)
    node = plan.find("finetune", ("organism-llama", "gsm8k", "1"))
    (problem,) = licence_problems(ingredients(plan, node), {})
    assert problem.startswith("bases.organism-llama.gated is true, or not said")


def test_who_rewrote_the_data_is_an_ingredient(repository, tmp_path):
    rows = "adaptations={gsm8k: {rephrase: %s}}"
    own = "rewriters={own: {kind: organism}, other: {kind: openai, model: some-model}}"
    found = {}
    for name in ("own", "other"):
        plan, _ = plan_of(repository, tmp_path, rows % name, own)
        node = plan.find("finetune", ("organism-llama", "gsm8k", "1"))
        found[name] = licence_problems(ingredients(plan, node), {})
    assert found["own"] == []
    (problem,) = found["other"]
    assert problem.startswith("rewriters.other.licence is not known")
    assert "publish a run without 'rephrase'" in problem
