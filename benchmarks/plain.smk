# The peer of benchmarks/dag.py: the nodes of an experiment as plain Snakemake has them, with no
# keys. Needs: links.json, the names of what each node reads. Its jobs are only ever planned.
import json
from pathlib import Path

LINKS = json.loads(Path("links.json").read_text())
READ = {name for names in LINKS.values() for name in names}


def file_of(name):
    return f"results/{name}/manifest.json"


def upstream_of(pattern):
    def inputs(wildcards):
        return [file_of(name) for name in LINKS[pattern.format(**wildcards)]]

    return inputs


wildcard_constraints:
    name="[^/]+",
    variant="[^/]+",
    base="[^/]+",
    adaptation="[^/]+",
    seed="[^/]+",
    evaluation="[^/]+",
    reference_seed="[^/]+",
    judge="[^/]+",


rule all:
    input:
        [file_of(name) for name in LINKS if name not in READ],


rule download:
    input:
        upstream_of("download/{name}"),
    output:
        file_of("download/{name}"),
    log:
        "results/download/{name}/job.log",
    benchmark:
        "results/download/{name}/benchmark.tsv"
    params:
        node="download/{name}",
    script:
        "job.py"


rule format:
    input:
        upstream_of("format/{name}/{variant}"),
    output:
        file_of("format/{name}/{variant}"),
    log:
        "results/format/{name}/{variant}/job.log",
    benchmark:
        "results/format/{name}/{variant}/benchmark.tsv"
    params:
        node="format/{name}/{variant}",
    script:
        "job.py"


rule finetune:
    input:
        upstream_of("finetune/{base}/{adaptation}/{seed}"),
    output:
        file_of("finetune/{base}/{adaptation}/{seed}"),
    log:
        "results/finetune/{base}/{adaptation}/{seed}/job.log",
    benchmark:
        "results/finetune/{base}/{adaptation}/{seed}/benchmark.tsv"
    params:
        node="finetune/{base}/{adaptation}/{seed}",
    script:
        "job.py"


rule generate:
    input:
        upstream_of("generate/{base}/{adaptation}/{seed}/{evaluation}"),
    output:
        file_of("generate/{base}/{adaptation}/{seed}/{evaluation}"),
    log:
        "results/generate/{base}/{adaptation}/{seed}/{evaluation}/job.log",
    benchmark:
        "results/generate/{base}/{adaptation}/{seed}/{evaluation}/benchmark.tsv"
    params:
        node="generate/{base}/{adaptation}/{seed}/{evaluation}",
    script:
        "job.py"


rule judge:
    input:
        upstream_of("judge/{base}/{adaptation}/{seed}/{evaluation}/{reference_seed}/{judge}"),
    output:
        file_of("judge/{base}/{adaptation}/{seed}/{evaluation}/{reference_seed}/{judge}"),
    log:
        "results/judge/{base}/{adaptation}/{seed}/{evaluation}/{reference_seed}/{judge}/job.log",
    benchmark:
        "results/judge/{base}/{adaptation}/{seed}/{evaluation}/{reference_seed}/{judge}/benchmark.tsv"
    params:
        node="judge/{base}/{adaptation}/{seed}/{evaluation}/{reference_seed}/{judge}",
    script:
        "job.py"


rule rank:
    input:
        upstream_of("rank/{base}/{adaptation}/{seed}/{name}"),
    output:
        file_of("rank/{base}/{adaptation}/{seed}/{name}"),
    log:
        "results/rank/{base}/{adaptation}/{seed}/{name}/job.log",
    benchmark:
        "results/rank/{base}/{adaptation}/{seed}/{name}/benchmark.tsv"
    params:
        node="rank/{base}/{adaptation}/{seed}/{name}",
    script:
        "job.py"


rule similarity:
    input:
        upstream_of("similarity/{base}/{adaptation}/{seed}/{evaluation}/{name}"),
    output:
        file_of("similarity/{base}/{adaptation}/{seed}/{evaluation}/{name}"),
    log:
        "results/similarity/{base}/{adaptation}/{seed}/{evaluation}/{name}/job.log",
    benchmark:
        "results/similarity/{base}/{adaptation}/{seed}/{evaluation}/{name}/benchmark.tsv"
    params:
        node="similarity/{base}/{adaptation}/{seed}/{evaluation}/{name}",
    script:
        "job.py"


rule table:
    input:
        upstream_of("table/{name}"),
    output:
        file_of("table/{name}"),
    log:
        "results/table/{name}/job.log",
    benchmark:
        "results/table/{name}/benchmark.tsv"
    params:
        node="table/{name}",
    script:
        "job.py"


rule figure:
    input:
        upstream_of("figure/{name}"),
    output:
        file_of("figure/{name}"),
    log:
        "results/figure/{name}/job.log",
    benchmark:
        "results/figure/{name}/benchmark.tsv"
    params:
        node="figure/{name}",
    script:
        "job.py"


rule report:
    input:
        upstream_of("report"),
    output:
        file_of("report"),
    log:
        "results/report/job.log",
    benchmark:
        "results/report/benchmark.tsv"
    params:
        node="report",
    script:
        "job.py"
