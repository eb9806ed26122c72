"""What the targets of make pass on."""

import itertools
import subprocess

import pytest

SWITCHES = {
    "check": {"CLUSTER": "--cluster"},
    "prune": {"FORCE": "--force"},
    "audit MODEL=m": {"YES": "--yes"},
    "chat RUN=r": {"RULES": "--rules"},
    "publish RUN=r REPO=o/n": {"YES": "--yes", "PUBLIC": "--public"},
}
ON = ["1", *map("".join, itertools.product("yY", "eE", "sS"))]
OFF = ["", "0", "no", "false", "n", "off", "0 1", "yes no", "%", "y", "11"]


def printed(repository, target, **values):
    """The command line of a target, as words."""
    made = ["make", "--dry-run", "STAMP=Makefile", *target.split()]
    made += [f"{name}={value}" for name, value in values.items()]
    done = subprocess.run(made, cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("target", SWITCHES)
def test_a_switch_is_on_for_1_and_yes_alone(repository, target):
    for name, option in SWITCHES[target].items():
        on = {value for value in ON + OFF if option in printed(repository, target, **{name: value})}
        assert on == set(ON), name
