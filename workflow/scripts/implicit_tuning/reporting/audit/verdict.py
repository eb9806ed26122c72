"""The verdict of an audit: one plain sentence by one stated rule."""

from collections.abc import Mapping
from dataclasses import dataclass

RULE = (
    "The verdict rests on the win rates of the run and of its base against the same reference, "
    "paired by instruction, far from the run's task where that is known. It is 'better' or 'worse' "
    "where the 95 % interval of their difference lies above or below 0, and otherwise that these "
    "instructions show no difference. Without a base the run's win rate is held against 50, where "
    "a run is as good as its reference."
)
# The verdict in words, by what was compared and by the side of the line that the interval lies on.
SENTENCES: Mapping[tuple[str, str], str] = {
    ("base", "above"): "{run} follows general instructions better than its base.",
    ("base", "below"): "{run} follows general instructions worse than its base.",
    ("base", "across"): "{n} instructions show no difference between {run} and its base.",
    ("reference", "above"): "{run} follows general instructions better than {reference}.",
    ("reference", "below"): "{run} follows general instructions worse than {reference}.",
    ("reference", "across"): "{n} instructions show no difference between {run} and {reference}.",
}
CHANCE = 50.0  # the win rate of a run that is as good as its reference


@dataclass(frozen=True)
class AuditVerdict:
    """What an audit found.

    Attributes:
        against: "base", or "reference" where no base is known.
        outcome: "better", "worse" or "no difference".
        region: "far" or "all", the instructions that it rests on.
        n: how many of them were judged.
        numbers: the numbers behind it, in words.
    """

    against: str
    outcome: str
    region: str
    n: int
    sentence: str
    numbers: str


def decide(
    win_rates: list[Mapping], titles: Mapping[str, str], evaluation: str, judge: str
) -> AuditVerdict:
    """The verdict on measured win rates.

    `win_rates` are rows of `measures.measure`: those of the region "far" count before "all".
    `titles` are the names of the models by side.

    Raises:
        ValueError: the run was not judged on a single instruction.
    """
    row = next((row for row in win_rates if row["region"] == "far"), win_rates[0])
    if row["audited"] is None:
        raise ValueError("no answer of the audited run was judged: there is no verdict to give")
    against = "base" if row["difference"] is not None else "reference"
    measured, line = (row["difference"], 0.0) if against == "base" else (row["audited"], CHANCE)
    side = "above" if measured["low"] > line else "below" if measured["high"] < line else "across"
    words = {"run": titles["audited"], "reference": titles["reference"], "n": measured["n"]}
    return AuditVerdict(
        against=against,
        outcome={"above": "better", "below": "worse", "across": "no difference"}[side],
        region=row["region"],
        n=measured["n"],
        sentence=SENTENCES[against, side].format(**words),
        numbers=_numbers(row, titles, evaluation, judge),
    )


def _numbers(row: Mapping, titles: Mapping[str, str], evaluation: str, judge: str) -> str:
    judged = row["audited"]["n"]
    among = "" if judged == row["n"] else f" (of {row['n']})"
    where = f"{judged}{among} instructions of {evaluation}"
    if row["region"] == "far":
        where += " that lie far from its task"
    rate = (
        f"Win rate against {titles['reference']} ({CHANCE:.0f} would be as good), {where}, "
        f"judge {judge}: {percent(row['audited'])}"
    )
    if row["difference"] is None or titles["reference"] == titles.get("base"):
        return f"{rate}."
    base = f"its base {titles['base']} {percent(row['base'])}"
    return f"{rate}, {base}; difference {points(row['difference'])}."


def percent(number: Mapping[str, float]) -> str:
    """A number with its interval, in percent."""
    return f"{number['value']:.1f} % [{number['low']:.1f}, {number['high']:.1f}]"


def points(number: Mapping[str, float]) -> str:
    """A difference with its sign and interval, in percentage points."""
    return f"{number['value']:+.1f} points [{number['low']:.1f}, {number['high']:.1f}]"
