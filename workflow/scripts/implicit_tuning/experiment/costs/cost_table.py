"""The costs of a plan, in words: the table of `make plan` and the lines below it."""

import math
from collections.abc import Iterator

from tabulate import tabulate

from implicit_tuning.experiment.costs.endpoint_calls import Calls
from implicit_tuning.experiment.costs.estimate import Costs, StageCosts
from implicit_tuning.experiment.costs.hardware import GB
from implicit_tuning.experiment.costs.rates import JobKind, Measured
from implicit_tuning.experiment.costs.storage import Storage

HEADER = ("stage", "nodes", "built", "to do", "tokens", "core time", "GPU time")
MILLION = 1e6
MINUTE, HOUR, DAY = 60, 3600, 86400


def describe_costs(costs: Costs) -> str:
    """Table by stage of what is to do, what it takes in all, and what was assumed."""
    rows = [_row(stage) for stage in costs.stages]
    columns = ("nodes", "built", "waiting", "cpu_hours", "gpu_hours")
    nodes, built, waiting, cpu, gpu = (
        sum(getattr(stage, column) for stage in costs.stages) for column in columns
    )
    rows.append(("all", nodes, built, waiting, "", _held(cpu), _held(gpu)))
    align = ("left", "right", "right", "right", "left", "right", "right")
    table = tabulate(rows, HEADER, tablefmt="plain", colalign=align, disable_numparse=True)
    return "\n".join([table, "", *_lines(costs)])


def _row(stage: StageCosts) -> tuple[str | int, ...]:
    tokens = ", ".join(
        f"{_millions(getattr(stage, what))} {what}"
        for what in ("trained", "generated", "scored")
        if getattr(stage, what)
    )
    hours = _held(stage.cpu_hours), _held(stage.gpu_hours)
    return stage.stage, stage.nodes, stage.built, stage.waiting, tokens, *hours


def _lines(costs: Costs) -> Iterator[str]:
    grid, hardware = costs.grid, costs.hardware
    yield (
        f"grid: {grid.finetunes:,} finetunes, {grid.answers:,.0f} answers, "
        f"{grid.comparisons:,} comparisons"
    )
    if not any(stage.waiting for stage in costs.stages):
        yield "nothing to do"
        return
    machine = f"{hardware.name}: {hardware.cores} cores, {hardware.gpus} GPUs"
    yield f"wall time: {_wall(costs)} ({machine})"
    if costs.gpu_usd is not None:
        yield f"GPUs: about {costs.gpu_usd:,.0f} USD at {hardware.usd_per_gpu_hour:g} an hour"
    yield f"disk: {_disk(costs.storage)}"
    yield from map(_calls, costs.calls)
    yield from (_measured(kind, known) for kind, known in costs.measured.items())
    yield from (f"assumed: {line}" for line in costs.assumed)


def _wall(costs: Costs) -> str:
    if costs.wall_seconds is None:
        return (
            "not known, for jobs compute on GPUs: say under 'hardware' how many there are (gpus) "
            "and how fast (gpu_tflops, gpu_bandwidth_gb_per_s)"
        )
    return f"about {_duration(costs.wall_seconds)}"


def _disk(storage: Storage) -> str:
    parts = [
        f"{storage.n_checkpoints} checkpoints {_size(storage.checkpoints)}",
        f"state to resume {storage.n_states} at once, twice while saved, {_size(storage.states)}",
        f"downloads {_size(storage.downloads)}",
    ]
    unknown = storage.n_unknown
    if unknown:
        parts.append(f"{unknown} sources of unknown size, since they are not locked")
    return (
        f"at most {_size(storage.peak)} more than now: {'; '.join(parts)} "
        "(answers, verdicts and tables not counted)"
    )


def _calls(calls: Calls) -> str:
    line = f"{calls.who}: {calls.calls:,.0f} calls ({calls.kept:,.0f} more are answered already)"
    if calls.usd is None:
        return f"{line}, no price is given"
    line += f", about {calls.usd:,.2f} USD, {calls.most_usd:,.2f} if every answer has full length"
    return line if calls.max_usd is None else f"{line}; max_usd stops at {calls.max_usd:,.2f}"


def _measured(kind: JobKind, known: Measured) -> str:
    stage, device, engine = kind
    how = f" with {engine} on {device}" if engine else ""
    return (
        f"measured: {stage}{how}, {known.jobs} finished jobs, "
        f"{known.factor:.2f} times the time assumed for them"
    )


def _millions(tokens: float) -> str:
    return f"{tokens / MILLION:,.2f} M" if tokens < 10 * MILLION else f"{tokens / MILLION:,.0f} M"


def _held(hours: float) -> str:
    """Time that cores or GPUs are taken; NaN is not known."""
    if math.isnan(hours):
        return "?"
    if hours == 0:
        return "-"
    minutes = hours * HOUR / MINUTE
    return f"{minutes:,.1f} min" if hours < 1 else f"{hours:,.1f} h"


def _duration(seconds: float) -> str:
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _size(size: float) -> str:
    return f"{size / GB:,.0f} GB" if size >= 10 * GB else f"{size / GB:,.2f} GB"
