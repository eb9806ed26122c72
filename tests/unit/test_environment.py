"""One list of dependencies: pyproject.toml and environment.yml say the same."""

import tomllib

import yaml


def test_environment_and_pyproject_have_the_same_pins(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    # config/paper.yaml needs the extra.
    extra = project["optional-dependencies"]["embeddings"]
    assert sorted(pip) == sorted([*project["dependencies"], *extra])
