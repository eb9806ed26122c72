# The whole workflow. Identity is ours (a key in every path, see implicit_tuning/nodes/node.py),
# scheduling is Snakemake's.
from snakemake.utils import min_version

min_version("9.27")

import os
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
SCRIPTS = str(ROOT / "workflow" / "scripts")
# The jobs import the package from where the plan does, whatever else is installed.
sys.path.insert(0, SCRIPTS)
search_path = [SCRIPTS, *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ.update(PYTHONPATH=os.pathsep.join(search_path))

# Spinning threads in contention fall to a fifteenth of their speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/nodes.smk"
include: "rules/data.smk"
include: "rules/base.smk"
include: "rules/adapt.smk"
include: "rules/generate.smk"
include: "rules/judge.smk"
include: "rules/analyse.smk"
include: "rules/report.smk"


onstart:
    require_writable_results()
    require_possible()


localrules:
    all,
    data,
    models,
    generations,
    judgements,
    tables,
    train_ins,
    train_resp,
    train_task,


rule all:
    """The finished experiment, under results/<experiment>/."""
    default_target: True
    input:
        milestone("format"),
        milestone("select"),
        [measured_group(group) for group in PLAN.groups()],
        stable_names_stamp,
        releases,


rule data:
    """Milestone: every data set is formatted."""
    input:
        milestone("format"),


rule models:
    """Milestone: every run is finetuned."""
    input:
        milestone("finetune"),


rule generations:
    """Milestone: every run has answered the evaluation set."""
    input:
        milestone("generate"),


rule judgements:
    """Milestone: every run is compared with its reference."""
    input:
        milestone("judge"),


rule tables:
    """Milestone: every table stands, with a copy under its stable name."""
    input:
        stable_names_stamp,


rule train_ins:
    """Milestone: instruction tuning of every base and seed."""
    input:
        finetunes_of("instruction"),


rule train_resp:
    """Milestone: response tuning of every base and seed."""
    input:
        finetunes_of("response"),


rule train_task:
    """Milestone: single-task finetuning of every base and seed."""
    input:
        finetunes_of("single_task"),
