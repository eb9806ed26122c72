# Needs: a model (base or checkpoint) and formatted instructions.
# Makes: results/nodes/generate/..., a run's answers to the evaluation set.

SHUFFLED = [n for n, a in PLAN.adaptations.items() if a["kind"] == "shuffled"]
GUARDED = [n for n, a in PLAN.adaptations.items() if a["kind"] == "guard"]
ANSWERING = [n for n in PLAN.adaptations if n not in (*SHUFFLED, *GUARDED)]


rule generate:
    """Answer the evaluation instructions greedily, with the rule adapter where asked for."""
    input:
        manifests=upstream_of("generate"),
        weights=weights_of("generate"),
    output:
        manifest=marker_output("generate", "manifest.json"),
    log:
        file_of("generate", "job.log"),
    benchmark:
        file_of("generate", "benchmark.tsv")
    wildcard_constraints:
        adaptation=one_of(ANSWERING),
    # Before further finetunes: first answers come early, and checkpoints can be given up.
    priority: 1
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    resources:
        checkpoints=checkpoints_held,
        gpu=gpus_of("generate"),
    params:
        node=spec_of("generate"),
    script:
        "../workflow/scripts/generate.py"


rule guard:
    """Answer as a run that a guard keeps to its task."""
    input:
        manifests=upstream_of("generate"),
        weights=weights_of("generate"),
    output:
        manifest=marker_output("generate", "manifest.json"),
    log:
        file_of("generate", "job.log"),
    benchmark:
        file_of("generate", "benchmark.tsv")
    wildcard_constraints:
        adaptation=one_of(GUARDED),
    # As for answers.
    priority: 1
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    resources:
        checkpoints=checkpoints_held,
        gpu=gpus_of("generate"),
    params:
        node=spec_of("generate"),
    script:
        "../workflow/scripts/guard.py"


rule shuffle:
    """Control: a run's own answers, each given to another instruction."""
    input:
        manifests=upstream_of("generate"),
    output:
        manifest=marker_output("generate", "manifest.json"),
    log:
        file_of("generate", "job.log"),
    benchmark:
        file_of("generate", "benchmark.tsv")
    wildcard_constraints:
        adaptation=one_of(SHUFFLED),
    conda:
        ENVIRONMENT
    params:
        node=spec_of("generate"),
    script:
        "../workflow/scripts/shuffle.py"
