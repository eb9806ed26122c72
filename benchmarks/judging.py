"""Time of judging 805 pairs over HTTP against what the endpoint alone takes.

A server on loopback, in a process of its own, answers every call after 50 ms; 805 pairs at 16 calls
at once take it 805 / 16 * 0.05 s = 2.52 s at best. Measured are

    calls       the endpoint judge alone, from the first call to the last verdict
    comparison  `compare` as a whole: AlpacaEval's annotator, every verdict put on disk, the summary
    nothing     the same comparison again: 0 calls
    one         after one output has changed: exactly 1 call

Exits with 3 when `calls` or `comparison` takes over 1.3 times the ideal, or calls are too many.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tabulate import tabulate

from aims import MISSED
from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import Needs, Pair
from implicit_tuning.judging.judges.openai import OpenAIJudge
from implicit_tuning.judging.kinds import identity_settings, make_judge, runtime_settings

SERVER = Path(__file__).resolve().parents[1] / "tests" / "support" / "judge_server.py"
PAIRS, CONCURRENCY, DELAY_S = 805, 16, 0.05
IDEAL_S = PAIRS / CONCURRENCY * DELAY_S
MOST = 1.3
# About the mean lengths of AlpacaEval: instruction 165 characters, output 1,400.
INSTRUCTION, OUTPUT = "Explain this. " * 12, "A sentence of an answer. " * 56


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="medians are over so many (3)")
    repeats = parser.parse_args().repeats
    command = [sys.executable, str(SERVER), "--delay", str(DELAY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            return report(server.stdout.readline().strip(), repeats)
        finally:
            server.terminate()


def report(url: str, repeats: int) -> int:
    """Measures everything and prints it; returns the exit status."""
    import alpaca_eval  # noqa: F401 - its import takes a second, once, and is not judging

    calls = median(timed(lambda: judge_alone(url)) for _ in range(repeats))
    rows = [["calls", calls, calls / IDEAL_S, PAIRS]]
    whole, nothing, one = zip(*(comparisons(url) for _ in range(repeats)), strict=True)
    for name, measured in (("comparison", whole), ("nothing", nothing), ("one", one)):
        seconds = median(seconds for seconds, _ in measured)
        rows.append([name, seconds, seconds / IDEAL_S, max(made for _, made in measured)])
    print(table(rows))
    in_time = all(ratio <= MOST for _, _, ratio, _ in rows[:2])
    return 0 if in_time and [made for *_, made in rows[1:]] == [PAIRS, 0, 1] else MISSED


def table(rows: list[list]) -> str:
    """Markdown: seconds, the ratio to the ideal with its aim, and calls made."""
    headers = ["what", "seconds", f"of ideal {IDEAL_S:.2f} s", "aim", "calls"]
    aims = [MOST, MOST, "", ""]
    shown = [[*row[:3], aim, row[3]] for row, aim in zip(rows, aims, strict=True)]
    return tabulate(shown, headers, tablefmt="github", floatfmt=".2f")


def comparisons(url: str) -> list[tuple[float, int]]:
    """Seconds and calls of a comparison, of the same again, and after one output has changed."""
    outputs, references = outputs_of("model", "b"), outputs_of("reference", "aa")
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for change in (False, False, True):
            outputs[400]["output"] += "more" if change else ""
            judge = new_judge(url)
            cache = Path(folder) / "verdicts.jsonl"
            seconds = timed(lambda: judge_outputs(outputs, references, judge, cache=cache))  # noqa: B023
            measured.append((seconds, judge.calls))
    return measured


def judge_alone(url: str) -> None:
    """Judges all pairs and keeps nothing."""
    outputs, references = outputs_of("model", "b"), outputs_of("reference", "aa")
    pairs = [
        Pair(row["instruction"], row["output"], other["output"])
        for row, other in zip(outputs, references, strict=True)
    ]
    assert all(verdict.status == "ok" for verdict in new_judge(url).judge(pairs))


def outputs_of(generator: str, ending: str) -> list[dict[str, str]]:
    """Rows as long as AlpacaEval's."""
    return [
        {"instruction": f"{INSTRUCTION}{i}", "output": OUTPUT + ending, "generator": generator}
        for i in range(PAIRS)
    ]


def new_judge(url: str) -> OpenAIJudge:
    """A judge with the defaults of the config."""
    entry = {"kind": "openai", "model": "benchmark", "base_url": url, "concurrency": CONCURRENCY}
    needs = Needs(truths=dict, model=Path, chat={}, spending=Path())
    return make_judge(identity_settings(entry), runtime_settings(entry), needs)


def timed(action: Callable[[], object]) -> float:
    """Returns the seconds that the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
