"""How long jobs take on so many cores and GPUs."""

import pytest

from implicit_tuning.experiment.costs.makespan import PlannedJob, makespan
from implicit_tuning.nodes.code import Code
from implicit_tuning.nodes.node import Node


def node(name, *above):
    upstream = {str(number): other for number, other in enumerate(above)}
    return Node("table", (name,), Code(()), {}, upstream)


def test_jobs_share_the_cores():
    jobs = {node(str(number)): PlannedJob(10.0, cores=1, gpus=0) for number in range(6)}
    assert makespan(jobs, cores=2, gpus=0) == 30
    assert makespan(jobs, cores=100, gpus=0) == 10


def test_a_chain_takes_as_long_as_its_links():
    first = node("first")
    second = node("second", first)
    jobs = {
        second: PlannedJob(5.0, 1, 0),
        first: PlannedJob(7.0, 1, 0),
        node("other"): PlannedJob(3.0, 1, 0),
    }
    assert makespan(jobs, cores=8, gpus=0) == 12


def test_a_job_waits_for_all_that_it_reads():
    short, long = node("short"), node("long")
    jobs = {
        short: PlannedJob(1.0, 1, 0),
        long: PlannedJob(9.0, 1, 0),
        node("last", short, long): PlannedJob(2.0, 1, 0),
    }
    assert makespan(jobs, cores=8, gpus=0) == 11


def test_upstream_that_stands_holds_nobody_up():
    jobs = {node("second", node("built")): PlannedJob(5.0, 1, 0)}
    assert makespan(jobs, cores=1, gpus=0) == 5


def test_jobs_on_gpus_wait_for_those_and_leave_the_cores_alone():
    jobs = {node(str(number)): PlannedJob(10.0, cores=8, gpus=2) for number in range(3)}
    jobs |= {node("cpu"): PlannedJob(25.0, cores=1, gpus=0)}
    assert makespan(jobs, cores=1, gpus=4) == 25
    assert makespan(jobs, cores=1, gpus=3) == 30


def test_a_job_that_wants_more_than_there_is_takes_all():
    jobs = {node(str(number)): PlannedJob(10.0, cores=16, gpus=0) for number in range(2)}
    assert makespan(jobs, cores=4, gpus=0) == 20


@pytest.mark.parametrize("count", [0, 1])
def test_few_jobs(count):
    jobs = {node(str(number)): PlannedJob(4.0, 1, 0) for number in range(count)}
    assert makespan(jobs, cores=1, gpus=1) == 4.0 * count
