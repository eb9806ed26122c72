"""What other tools and people expect at fixed places: metadata, forms, the CI, the tutorial's config."""

import os
import re
import tomllib

import pytest
import yaml

from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory

FIELDS = {"input", "textarea", "dropdown", "checkboxes"}
FORMS = ("bug", "request", "reproduction")
DEPLOYMENTS = {"conda", "apptainer", "apptainer+conda"}
# Stages whose nodes take time: what the tutorial builds must serve the default experiment too.
SHARED_STAGES = ("download", "format", "finetune", "generate", "judge")


@pytest.fixture
def read(repository):
    """Function that parses a YAML file of the repository."""
    return lambda name: yaml.safe_load((repository / name).read_text())


def test_every_yaml_file_parses(repository):
    files = [*repository.glob(".*.yml"), *repository.glob(".*.yaml"), *repository.glob("*.yml")]
    files += [*repository.glob(".github/**/*.yml"), *repository.glob("config/**/*.yaml")]
    files += [repository / "CITATION.cff"]
    assert len(files) > 15
    for file in files:
        assert isinstance(yaml.safe_load(file.read_text()), dict), file


def test_the_citation_has_what_its_format_requires(read, repository):
    citation = read("CITATION.cff")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert "2409.14254" in paper["url"]


def test_the_catalog_finds_a_workflow_and_how_to_use_it(read, repository):
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == DEPLOYMENTS
    # Every rule that runs a script names its conda environment, and none a container.
    rules = "\n".join(file.read_text() for file in repository.glob("rules/*.smk"))
    assert deployment["conda"] == ("conda:" in rules)
    assert deployment["apptainer"] == ("container:" in rules)
    readme = (repository / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    assert (repository / "Snakefile").is_file()


def test_the_catalogs_page_names_every_config_and_every_section(read, repository):
    page = (repository / "config/README.md").read_text()
    for file in repository.glob("config/*.yaml"):
        assert f"`{file.name}`" in page
    for section in read("config/schema.yaml")["properties"]:
        assert f"`{section}`" in page


def test_the_ci_runs_what_a_change_must_pass(read, repository):
    workflow = read(".github/workflows/ci.yml")
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 60
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert os.access(repository / ".ci/run", os.X_OK)
    lowest = tomllib.loads((repository / "pyproject.toml").read_text())["project"][
        "requires-python"
    ]
    assert lowest.startswith(f">={job['strategy']['matrix']['python'][0]},")


@pytest.mark.parametrize("form", FORMS)
def test_a_form_asks_for_what_an_answer_needs(read, form):
    found = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= set(found)
    fields = [field for field in found["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= FIELDS
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids))
    for field in fields:
        assert field["attributes"]["label"]
        assert field["validations"] == {"required": True}


def test_a_bug_report_comes_with_what_make_check_says(read):
    body = read(".github/ISSUE_TEMPLATE/bug.yml")["body"]
    assert {"command", "config", "message", "check"} <= {field.get("id") for field in body}


def test_links_of_the_pages_lead_somewhere(repository):
    pages = [*repository.glob("*.md"), *repository.glob("docs/*.md"), *repository.glob("*/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_the_tutorial_builds_is_built_for_the_default_too(repository, tmp_path):
    def keys(name):
        config = read_config([repository / f"config/{name}.yaml"], repository)
        plan = build_plan(config, DigestMemory(tmp_path / "digests.json"))
        return {node.plan_key for stage in SHARED_STAGES for node in plan.stage(stage)}

    assert keys("tutorial") <= keys("config")
