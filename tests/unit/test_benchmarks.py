"""The page of benchmarks has a place for each, and is changed there alone."""

import ast

import pytest

import collect

PAGE = "before\n<!-- measured: a.py -->\nold\n<!-- end: a.py -->\nafter\n"


def test_only_what_lies_between_the_marks_is_replaced():
    page = collect.replaced(PAGE, "a.py", "new")
    assert page == PAGE.replace("old", "new")
    assert collect.replaced(page, "a.py", "old") == PAGE


@pytest.mark.parametrize("page", ["", PAGE.replace("end:", "ends:")])
def test_a_page_without_the_marks_is_refused(page):
    with pytest.raises(ValueError, match="no '<!-- measured: a.py -->'"):
        collect.replaced(page, "a.py", "new")


@pytest.mark.parametrize("name", collect.NAMES)
def test_every_benchmark_has_a_place_in_the_page(name):
    page = collect.PAGE.read_text(encoding="utf-8")
    assert collect.replaced(page, name, "new").count("new") > page.count("new")


def test_every_benchmark_of_the_cpu_is_collected():
    """All that can be run, but for the one that needs a GPU and what the others start."""
    files = collect.BENCHMARKS.glob("*.py")
    programs = {f.name for f in files if "__main__" in ast.unparse(ast.parse(f.read_text()))}
    started_by_others = {"collect.py", "gpu.py", "run_script.py", "usage.py"}
    assert set(collect.NAMES) == programs - started_by_others
