"""Identity of nodes: what changes a key, and what does not."""

import ast
import subprocess
import sys

import pytest

from implicit_tuning.nodes import code
from implicit_tuning.nodes.code import Code
from implicit_tuning.nodes.files import seal
from implicit_tuning.nodes.node import KeyNotKnown, Node, NodePaths, Source, folder_pattern
from module_memory import forget_modules


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
    monkeypatch.setattr(code, "SCRIPTS", tmp_path)
    forget_modules()
    yield tmp_path
    forget_modules()


def fingerprint(*roots):
    forget_modules()
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


def move(project, old, new):
    """Rename a module, and follow in every import statement."""
    name, other = (path.removesuffix(".py").replace("/", ".") for path in (old, new))
    (project / new).parent.mkdir(exist_ok=True)
    (project / old).rename(project / new)
    for file in project.rglob("*.py"):
        file.write_text(file.read_text().replace(name, other))


# In each, `value` of the first module comes from the second, which is moved below.
MOVED = {
    "a name": ("from implicit_tuning.second import later\n", "later()"),
    "a name under another name": ("from implicit_tuning.second import later as l\n", "l()"),
    "a module": ("import implicit_tuning.second as second\n", "second.later()"),
}


@pytest.mark.parametrize(("statement", "call"), MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("new", ["implicit_tuning/a.py", "implicit_tuning/kinds/zz.py"])
def test_a_move_changes_no_fingerprint(project, statement, call, new):
    (project / "implicit_tuning/first.py").write_text(
        f"from implicit_tuning.kinds.two import NAME\n{statement}value = [NAME, {call}]\n"
    )
    (project / "implicit_tuning/second.py").write_text(
        "from implicit_tuning.kinds import one\ndef later(): return one.NAME\n"
    )
    before, modules = fingerprint("work"), Code(("work",)).modules
    move(project, "implicit_tuning/second.py", new)
    assert fingerprint("work") == before
    moved = new.removesuffix(".py").replace("/", ".")
    assert Code(("work",)).modules == {
        moved if name == "implicit_tuning.second" else name: digest
        for name, digest in modules.items()
    }


def test_a_module_that_is_called_by_its_name_may_change_it(project):
    (project / "work.py").write_text("from implicit_tuning.kinds import one\nprint(one.NAME)\n")
    before = fingerprint("work")
    (project / "implicit_tuning/kinds/one.py").rename(project / "implicit_tuning/kinds/uno.py")
    (project / "work.py").write_text("from implicit_tuning.kinds import uno\nprint(uno.NAME)\n")
    assert fingerprint("work") == before


def test_an_edit_changes_exactly_the_fingerprints_of_what_imports_it(project):
    roots = [
        "work",
        *(f"implicit_tuning.{n}" for n in ("first", "second", "kinds.one", "kinds.two")),
    ]
    before, own = [fingerprint(root) for root in roots], Code(("work",)).modules
    (project / "implicit_tuning/kinds/one.py").write_text("NAME = 'other'\n")
    after = [fingerprint(root) for root in roots]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True] * 4 + [False]
    now = Code(("work",)).modules
    assert [name for name in own if own[name] != now[name]] == ["implicit_tuning.kinds.one"]


def test_the_same_name_from_another_module_is_another_fingerprint(project):
    (project / "work.py").write_text("from implicit_tuning.kinds.one import NAME\n")
    before = fingerprint("work")
    (project / "work.py").write_text("from implicit_tuning.kinds.two import NAME\n")
    assert fingerprint("work") != before


def test_a_function_that_imports_from_another_module_is_another_fingerprint(project):
    both = "def f():\n    from implicit_tuning.kinds.{} import NAME\n\n\ndef g():\n    from implicit_tuning.kinds.{} import NAME\n"
    (project / "work.py").write_text(both.format("one", "two"))
    before = fingerprint("work")
    (project / "work.py").write_text(both.format("two", "one"))
    assert fingerprint("work") != before


def test_modules_that_import_one_another_are_named(project):
    one = project / "implicit_tuning/kinds/one.py"
    one.write_text("from implicit_tuning.first import value\n")
    with pytest.raises(ImportError, match=r"in a circle: implicit_tuning\.\w+.* -> "):
        fingerprint("work")


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
    trees = [code.short_hash(code._syntax(ast.parse(f"x = {text}"))) for text in texts]
    assert len(set(trees)) == len(texts)


def test_a_string_alone_is_a_docstring_only_at_the_start():
    first = code._syntax(ast.parse("def f():\n    'doc'\n    g()\n"))
    without = code._syntax(ast.parse("def f():\n    g()\n"))
    later = code._syntax(ast.parse("def f():\n    g()\n    'text'\n"))
    assert first == without != later


def test_fingerprint_is_the_same_in_another_process():
    code = "from implicit_tuning.nodes.code import Code; print(Code(('finetune',)).fingerprint)"
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
    with pytest.raises(KeyNotKnown, match="format/lima/plain"):
        paths.key(below[0])
    for above in (first, other):
        paths.folder(above).mkdir(parents=True)
        paths.manifest(above).write_text(seal({"digest": "same bytes"}))
    assert paths.key(below[0]) == paths.key(below[1])


def test_folder_names_stage_levels_and_key(tmp_path):
    paths = NodePaths(tmp_path)
    node = make_node()
    assert paths.folder(node) == tmp_path / "nodes/finetune/b/a/1" / paths.key(node)
    assert folder_pattern("r", "finetune") == "r/nodes/finetune/{base}/{adaptation}/{seed}/{key}"
