"""The page of benchmarks has a place for each, and is changed there alone."""

import ast
import re

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


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page and a folder of benchmarks of their own."""
    monkeypatch.setattr(collect, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(collect, "BENCHMARKS", tmp_path)
    collect.PAGE.write_text(PAGE)
    return collect.PAGE


@pytest.mark.parametrize("status", [0, collect.MISSED])
def test_what_a_benchmark_prints_stands_in_the_page_with_its_date(page, status):
    page.with_name("a.py").write_text(f"print('| new |')\nraise SystemExit({status})")
    assert collect.measure("a.py") == status
    assert re.search(
        r"-->\n\*\d{4}-\d\d-\d\d, .* before\*\n\n\| new \|\n<!-- end", page.read_text()
    )


@pytest.mark.parametrize(
    "end", ["raise ValueError", "raise SystemExit(2)", "import os; os.abort()"]
)
def test_half_a_table_of_one_that_failed_does_not(page, end):
    page.with_name("a.py").write_text(f"print('| half |')\n{end}")
    assert collect.measure("a.py") == collect.FAILED
    assert page.read_text() == PAGE


@pytest.mark.parametrize("name", collect.NAMES)
def test_every_benchmark_has_a_place_in_the_page(name):
    page = collect.PAGE.read_text(encoding="utf-8")
    assert collect.replaced(page, name, "new").count("new") > page.count("new")
    assert "(to be measured)" not in page


def test_every_benchmark_of_the_cpu_is_collected():
    """All that can be run, but for the one that needs a GPU and what the others start."""
    files = collect.BENCHMARKS.glob("*.py")
    programs = {f.name for f in files if "__main__" in ast.unparse(ast.parse(f.read_text()))}
    started_by_others = {"collect.py", "gpu.py", "run_script.py", "usage.py"}
    assert set(collect.NAMES) == programs - started_by_others
