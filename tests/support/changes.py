"""Changes that a user, or an accident, makes to a checkout; each is a function of a `Checkout`."""

import ast
import re
import shutil
import time

import psutil


def nothing(checkout):
    """The run is only started again."""


def all_of(*changes):
    def change(checkout):
        for one in changes:
            one(checkout)

    return change


def config(**values):
    """Set keys of the config; `a__b` is the key b under a."""

    def change(checkout):
        for path, value in values.items():
            *above, key = path.split("__")
            section = checkout.config
            for name in above:
                section = section[name]
            section[key] = value

    return change


def adaptation(name, **values):
    """Set keys of an adaptation; without any, remove it."""

    def change(checkout):
        adaptations = checkout.config["adaptations"]
        if values:
            adaptations[name] = {**adaptations.get(name, {}), **values}
        else:
            del adaptations[name]

    return change


def touch_all(checkout):
    for file in checkout.folder.rglob("*"):
        if file.is_file():
            file.touch()


def lose_snakemake(checkout):
    shutil.rmtree(checkout.folder / ".snakemake")


def move_checkout(checkout):
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))


def clone_afresh(checkout):
    """The code checked out anew elsewhere, over the same results, which move there."""
    results = checkout.results
    checkout.check_out(checkout.folder.with_name("clone"))
    results.rename(checkout.results)


def reverse_keys(checkout):
    checkout.config = _reversed(checkout.config)


def _reversed(value):
    if isinstance(value, dict):
        return {key: _reversed(item) for key, item in reversed(value.items())}
    return value


def respell(checkout):
    """Other comments, docstrings and formatting in every script, module and rule."""
    for file in (checkout.folder / "workflow/scripts").rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if documented and ast.get_docstring(node) is not None:
                node.body[0].value.value = "In other words."
        file.write_text(f"# A comment.\n{ast.unparse(tree)}\n")
    for file in (checkout.folder / "rules").glob("*.smk"):
        file.write_text(f"# A comment.\n{file.read_text()}")


def reword_captions(checkout):
    captions = list((checkout.folder / "workflow/report").glob("*.rst"))
    assert captions
    for file in captions:
        file.write_text(f"{file.read_text()}\nIn other words.\n")


def edit_page(checkout):
    page = checkout.folder / "workflow/report/report.html.jinja"
    page.write_text(page.read_text().replace("</body>", "<!-- In other words. --></body>"))


def logic(*names):
    """A statement more in each of these files."""

    def change(checkout):
        for name in names:
            file = checkout.folder / "workflow/scripts" / f"{name}.py"
            file.write_text(f"{file.read_text()}\n\nADDED = True\n")

    return change


def rename(old, new):
    """A module under another name, or in another folder, with every import statement in step."""

    def change(checkout):
        scripts = checkout.folder / "workflow/scripts"
        place = scripts / f"{new}.py"
        place.parent.mkdir(exist_ok=True)
        (scripts / f"{old}.py").rename(place)
        before, after = (re.escape(old.replace("/", ".")), new.replace("/", "."))
        for file in [*scripts.rglob("*.py"), *(checkout.folder / "rules").glob("*.smk")]:
            file.write_text(re.sub(rf"{before}\b", after, file.read_text()))

    return change


def split(module, function, new):
    """A function of a module in a new module, from which the old one imports it."""

    def change(checkout):
        scripts = checkout.folder / "workflow/scripts"
        file = scripts / f"{module}.py"
        tree = ast.parse(file.read_text())
        moved = next(s for s in tree.body if getattr(s, "name", "") == function)
        imports = [s for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom)]
        tree.body.remove(moved)
        text = f"from {new.replace('/', '.')} import {function}\n{ast.unparse(tree)}\n"
        file.write_text(text)
        whole = ast.unparse(ast.Module([*imports, moved], []))
        (scripts / f"{new}.py").write_text(f"{whole}\n")

    return change


def upgrade(library):
    """Another version of an installed library, as importlib.metadata finds it."""

    def change(checkout):
        packages = checkout.folder / "upgraded"
        metadata = packages / f"{library.replace('-', '_')}-99.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 99.0\n")
        checkout.environment["PYTHONPATH"] = str(packages)

    return change


def rows_of_chess(edit=lambda text: text):
    """Chess reads a local file: the rows of its source, edited."""

    def change(checkout):
        # Not by its stable name: once this is published, that data set is none of the config's.
        sources = checkout.results.glob("nodes/download/organism-chess/*/data/chess.jsonl")
        source = next(sources)
        (checkout.folder / "chess.jsonl").write_text(edit(source.read_text()))
        checkout.config["datasets"]["own-chess"] = {
            "kind": "training", "formatter": "chess", "path": "chess.jsonl", "licence": "none",
            "gated": False,
        }  # fmt: skip
        checkout.config["adaptations"]["chess"]["data"] = "own-chess"

    return change


def lose(name):
    """The folder of a node."""
    return lambda checkout: shutil.rmtree(node_folder(checkout, name))


def lose_copy(name):
    return lambda checkout: (checkout.results / "smallest" / name).unlink()


def node_folder(checkout, name):
    return (checkout.results / "smallest/current" / name).resolve()


def cut_short(file):
    """Damage to one file."""
    file.write_bytes(file.read_bytes()[:20])


# --- strikes ------------------------------------------------------------------------------------


def kill_a(rule):
    """SIGKILL to the first job of a rule, as the kernel does when memory runs out."""
    return lambda running: running.job(rule).kill()


def starve_a(rule):
    """No memory to speak of, beyond what it has, for the first job of a rule that is at work."""

    def strike(running):
        job = running.job(rule)
        while not any(file.path.endswith("/job.log") for file in job.open_files()):
            time.sleep(0.02)
        limit = job.memory_info().vms + 16_000_000
        job.rlimit(psutil.RLIMIT_AS, (limit, limit))

    return strike
