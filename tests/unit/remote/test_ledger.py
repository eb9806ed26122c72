"""The ledger of a judge: one cap for all who spend, whatever ends them."""

import json
import subprocess
import sys

import pytest

from implicit_tuning.remote.failures import CostCapReached, UnusableLedger
from implicit_tuning.remote.ledger import Ledger

SPENDER = """
import sys, time
from pathlib import Path
from implicit_tuning.remote.failures import CostCapReached
from implicit_tuning.remote.ledger import Ledger

ledger, spent = Ledger(Path(sys.argv[1]), max_usd=2.0), 0
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        call = ledger.promise(0.125)
        time.sleep(0.01)
        ledger.settle(call, 0.0625)
        spent += 0.0625
except CostCapReached:
    print(spent)
"""
KILLED = """
import sys, time
from pathlib import Path
from implicit_tuning.remote.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]), max_usd=1.0)
ledger.settle(ledger.promise(0.5), 0.25)
ledger.promise(0.5)
print("promised", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spending" / "judge-1.json"


def start(program, path):
    """A process with the program, which has printed its first line."""
    command = [sys.executable, "-c", program, str(path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline(), process.communicate()[1]
    return process


def test_two_processes_share_one_cap(path):
    spenders = [start(SPENDER, path) for _ in range(2)]
    for spender in spenders:
        spender.stdin.write("go\n")
        spender.stdin.flush()
    printed = [spender.communicate()[0] for spender in spenders]
    assert [spender.returncode for spender in spenders] == [0, 0]
    spent = [float(text) for text in printed]
    assert min(spent) > 0
    assert json.loads(path.read_text()) == {"open": {}, "spent_usd": sum(spent)}
    # Who is refused needs 0.125, and the other may just then hold as much.
    assert 2.0 - 2 * 0.125 < sum(spent) <= 2.0


def test_what_a_killed_process_promised_counts_as_spent(path):
    spender = start(KILLED, path)
    spender.kill()
    spender.communicate()
    ledger = Ledger(path, max_usd=1.0)
    assert ledger.committed_usd() == 0.75
    with pytest.raises(CostCapReached) as caught:
        ledger.promise(0.375)
    assert str(caught.value) == (
        "spent 0.2500 USD and 0.5000 promised by other or killed runs of max_usd 1, and the next "
        f"call may cost 0.3750; all that this judge has cost is in {path}: raise max_usd to go on"
    )
    ledger.settle(ledger.promise(0.25), 0.25)
    Ledger(path, max_usd=1.5).promise(0.375)


def test_only_money_that_own_calls_hold_is_waited_for(path):
    ours, theirs = Ledger(path, max_usd=1.0), Ledger(path, max_usd=1.0)
    call = ours.promise(0.75)
    assert ours.promise(0.5) is None
    with pytest.raises(CostCapReached):
        theirs.promise(0.5)
    ours.settle(call, 0.25)
    assert theirs.promise(0.5) is not None
    with pytest.raises(CostCapReached):
        ours.promise(0.5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"open": {}, "spent',
        "[]",
        '{"open": {}}',
        '{"spent_usd": 1.0}',
        '{"open": 1, "spent_usd": 1.0}',
        '{"open": {"a": null}, "spent_usd": 1.0}',
        '{"open": {}, "spent_usd": NaN}',
        '{"open": {"a": Infinity}, "spent_usd": 1.0}',
        '{"open": {}, "spent_usd": -1.0}',
    ],
)
def test_a_damaged_ledger_is_refused_by_name(path, content):
    path.parent.mkdir()
    path.write_text(content)
    ledger = Ledger(path, max_usd=1.0)
    for action in (ledger.committed_usd, lambda: ledger.promise(0.1)):
        with pytest.raises(UnusableLedger, match="is damaged or was removed") as caught:
            action()
        assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_a_ledger_that_vanishes_is_not_begun_anew(path):
    Ledger(path, max_usd=1.0).promise(0.5)
    ledger = Ledger(path, max_usd=1.0)
    assert ledger.committed_usd() == 0.5
    path.unlink()
    with pytest.raises(UnusableLedger, match="was removed"):
        ledger.promise(0.1)


def test_a_ledger_that_has_lost_a_call_under_way_is_refused(path):
    ledger = Ledger(path, max_usd=1.0)
    call = ledger.promise(0.5)
    path.unlink()
    Ledger(path, max_usd=1.0).promise(0.25)
    for action in (lambda: ledger.promise(0.1), lambda: ledger.settle(call, 0.5)):
        with pytest.raises(UnusableLedger, match="was removed"):
            action()


def test_a_ledger_that_cannot_be_kept_lets_no_call_through(path):
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(UnusableLedger, match="cannot be read or written") as caught:
        Ledger(path, max_usd=1.0).promise(0.1)
    assert str(path) in str(caught.value)
