"""Nodes as jobs leave them, without the jobs, and pages that are made of them."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.digests import combined_sha256, file_sha256
from implicit_tuning.nodes.files import seal
from implicit_tuning.nodes.node import LEVELS
from implicit_tuning.reporting.figures.style import finish, write_csv
from implicit_tuning.reporting.tables.layout import write_table

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & "it\'s" {{ 7 * 7 }}'


class Experiment:
    """Nodes as jobs leave them, without the jobs."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.nodes: dict[str, Path] = {}

    def add(self, name, upstream=(), settings=None, facts=None) -> Path:
        """Makes a node out of what lies in its data folder; returns that folder."""
        stage, *levels = name.split("/")
        key = short_hash(name)
        folder = self.results / "nodes" / name / key
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        files = {
            path.name: {"sha256": file_sha256(path), "size": path.stat().st_size}
            for path in sorted(data.iterdir())
        }
        manifest = {
            "stage": stage,
            "levels": dict(zip(LEVELS[stage], levels, strict=True)),
            "key": key,
            "settings": settings or {},
            "code": {"fingerprint": "f" * 20, "modules": {"m": "0"}, "versions": {"torch": "2"}},
            "upstream": {role: self._origin(above) for role, above in dict(upstream).items()},
            "facts": facts or {},
            "files": files,
            "digest": combined_sha256({name: entry["sha256"] for name, entry in files.items()}),
        }
        (folder / "manifest.json").write_text(seal(manifest))
        self.nodes[name] = folder
        return data

    def _origin(self, above: str) -> dict:
        """A node's key, or the digest of a source."""
        return {"key": self.nodes[above].name} if above in self.nodes else {"digest": above}

    def table(self, name, table, upstream, settings=None) -> None:
        data = self.results / "nodes/table" / name / short_hash(f"table/{name}") / "data"
        write_table(table, data, name)
        self.add(f"table/{name}", upstream, settings)

    def figure(self, name) -> None:
        data = self.results / "nodes/figure" / name / short_hash(f"figure/{name}") / "data"
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [1, 0], marker="o", clip_on=True)
        finish(figure, data, name, "label")
        write_csv(pd.DataFrame({"x": [0, 1]}), data, name)
        self.add(f"figure/{name}", {"table": f"table/{name}"})

    def named(self, stage) -> dict[str, str]:
        """Upstream of a table over all nodes of a stage: levels → name."""
        return {name.partition("/")[2]: name for name in self.nodes if name.startswith(f"{stage}/")}


class Reading(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, attribute) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]
