"""A folder that looks like the repository, in which runs of the smallest experiment are built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.models.chat import ChatFormat, chat_template
from implicit_tuning.nodes.job import building, job_spec
from implicit_tuning.nodes.node import Node, NodePaths
from planned import SMALLEST, plan_of

RUN = "organism-llama/response/1"
BASE = "resources/organism/llama"


def stand(paths: NodePaths, node: Node, origin: Path | None = None, **facts: object) -> Path:
    """Build a node, and first what it reads, of the files of a folder; returns its folder."""
    for above in node.upstream.values():
        if isinstance(above, Node) and not is_built(paths, above):
            stand(paths, above)
    with building(job_spec(paths, node)) as job:
        if origin is not None:
            shutil.copytree(origin, job.data, dirs_exist_ok=True)
        job.facts.update(facts)
    return paths.folder(node)


class Place:
    """The folder. `run` starts a command of the package there as a user does."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder, self.repository = folder, repository
        for name in ("Snakefile", "config", "resources"):
            (folder / name).symlink_to(repository / name)
        config = yaml.safe_load((repository / SMALLEST[0]).read_text())
        config["bases"]["organism-llama"]["licence"] = "MIT"
        (folder / "smallest.yaml").write_text(yaml.safe_dump(config))

    def plan(self, *overrides: str) -> tuple[Plan, NodePaths]:
        """The plan that commands here will make."""
        return plan_of(self.repository, self.folder, *overrides, files=SMALLEST)

    def build_checkpoint(self) -> Path:
        """Let the run's checkpoint stand: the weights of its base. Returns its folder."""
        plan, paths = self.plan()
        origin = self.folder / "checkpoint"
        shutil.copytree(self.repository / BASE, origin)
        (origin / "README.md").unlink(missing_ok=True)
        template = chat_template(ChatFormat(**plan.config.chat), begins_with_bos=True)
        (origin / "chat_template.jinja").write_text(template)
        (origin / "loss_history.jsonl").write_text('{"epoch": 7, "loss": 0.5}\n')
        counts = dict.fromkeys(("examples", "updates", "tokens", "truncated", "lost_eos"), 32)
        node = plan.find("finetune", tuple(RUN.split("/")))
        return stand(paths, node, origin, final_loss=0.5, **counts)

    def run(
        self, *arguments: str, environment: dict[str, str] | None = None, text: str = ""
    ) -> subprocess.CompletedProcess:
        """Start a command, with `text` as its input."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        inherited |= {"PYTHONPATH": str(self.repository / "workflow/scripts")}
        return subprocess.run(
            [sys.executable, "-m", "implicit_tuning", *arguments],
            cwd=self.folder,
            env=inherited | {"HF_HUB_OFFLINE": "1"} | (environment or {}),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
