"""Identity of nodes: what changes a key, and what does not."""

import ast
import subprocess
import sys

import pytest

from implicit_tuning import nodes
from implicit_tuning.digests import seal
from implicit_tuning.nodes import Code, Node, NodePaths, Source, Unpublished


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project of its own: scripts/work.py and the package beside it."""
    package = tmp_path / "implicit_tuning"
    (package / "kinds").mkdir(parents=True)
    files = {
        "work.py": "from implicit_tuning.first import value\n\n\ndef work():\n    return value\n",
        "implicit_tuning/__init__.py": '"""Package."""\n',
        "implicit_tuning/first.py": '"""First."""\nfrom . import second\n\nvalue = 1\n',
        "implicit_tuning/second.py": "def later():\n    from .kinds import one\n    return one\n",
        "implicit_tuning/kinds/__init__.py": "",
        "implicit_tuning/kinds/one.py": "import json\nNAME = 'one'\n",
        "implicit_tuning/kinds/two.py": "NAME = 'two'\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(nodes, "SCRIPTS", tmp_path)
    clear_caches()
    yield tmp_path
    clear_caches()


def clear_caches():
    nodes._read_module.cache_clear()
    nodes._module_digests.cache_clear()


def fingerprint(*roots):
    clear_caches()
    return Code(roots).fingerprint


def test_fingerprint_covers_imports_at_any_depth_and_inside_functions(project):
    assert list(Code(("work",)).modules) == [
        "implicit_tuning.first",
        "implicit_tuning.kinds.one",
        "implicit_tuning.second",
        "work",
    ]


@pytest.mark.parametrize("module", ["work.py", "implicit_tuning/kinds/one.py"])
def test_logic_changes_the_fingerprint(project, module):
    before = fingerprint("work")
    file = project / module
    file.write_text(file.read_text() + "\nADDED = 2\n")
    assert fingerprint("work") != before


def test_a_module_that_is_not_imported_changes_nothing(project):
    before = fingerprint("work")
    (project / "implicit_tuning/kinds/two.py").write_text("NAME = 'three'\n")
    assert fingerprint("work") == before


def test_comments_docstrings_and_formatting_change_nothing(project):
    before = fingerprint("work")
    (project / "work.py").write_text(
        '"""New."""\n# A comment.\nfrom implicit_tuning.first import (\n    value,\n)\n'
        'def work( ):\n    """Says what."""\n    return (value)\n'
    )
    assert fingerprint("work") == before


def test_equal_looking_constants_of_other_types_differ():
    texts = ["1", "1.0", "True", "'1'", "b'1'"]
    trees = [nodes.short_hash(nodes._syntax(ast.parse(f"x = {text}"))) for text in texts]
    assert len(set(trees)) == len(texts)


def test_a_string_alone_is_a_docstring_only_at_the_start():
    first = nodes._syntax(ast.parse("def f():\n    'doc'\n    g()\n"))
    without = nodes._syntax(ast.parse("def f():\n    g()\n"))
    later = nodes._syntax(ast.parse("def f():\n    g()\n    'text'\n"))
    assert first == without != later


def test_fingerprint_is_the_same_in_another_process():
    code = "from implicit_tuning.nodes import Code; print(Code(('finetune',)).fingerprint)"
    run = [sys.executable, "-c", code]
    there = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    assert there == Code(("finetune",)).fingerprint


def test_a_library_that_is_missing_is_named():
    with pytest.raises(ModuleNotFoundError, match="no-such-distribution is not installed"):
        _ = Code(("finetune",), ("no-such-distribution",)).fingerprint


def make_node(stage="finetune", levels=("b", "a", "1"), settings=None, upstream=None, **more):
    code = Code(("shuffle",))
    return Node(stage, levels, code, settings or {"rate": 0.1}, upstream or {}, **more)


def test_key_depends_on_settings_and_sources_but_not_on_order_paths_or_runtime(tmp_path):
    def key(settings, source, **more):
        return NodePaths(tmp_path).key(make_node(settings=settings, upstream=source, **more))

    here, there = Source(tmp_path / "a", "d1"), Source(tmp_path / "b", "d1")
    first = key({"rate": 0.1, "epochs": 2}, {"rows": here})
    assert key({"epochs": 2, "rate": 1.0e-1}, {"rows": there}) == first
    assert key({"rate": 0.1, "epochs": 2}, {"rows": here}, runtime={"save_every": 9}) == first
    assert key({"rate": 0.2, "epochs": 2}, {"rows": here}) != first
    assert key({"rate": 0.1, "epochs": 2}, {"rows": Source(tmp_path, "d2")}) != first


def test_keys_below_a_cut_off_follow_its_content(tmp_path):
    paths = NodePaths(tmp_path)
    first = make_node("format", ("lima", "plain"), {"rows": 1})
    other = make_node("format", ("lima", "plain"), {"rows": 2})
    below = [make_node(upstream={"rows": above}) for above in (first, other)]
    assert below[0].plan_key != below[1].plan_key
    with pytest.raises(Unpublished, match="format/lima/plain"):
        paths.key(below[0])
    for above in (first, other):
        paths.folder(above).mkdir(parents=True)
        paths.manifest(above).write_text(seal({"digest": "same bytes"}))
    assert paths.key(below[0]) == paths.key(below[1])


def test_folder_names_stage_levels_and_key(tmp_path):
    paths = NodePaths(tmp_path)
    node = make_node()
    assert paths.folder(node) == tmp_path / "nodes/finetune/b/a/1" / paths.key(node)
    assert (
        nodes.folder_pattern("r", "finetune") == "r/nodes/finetune/{base}/{adaptation}/{seed}/{key}"
    )
