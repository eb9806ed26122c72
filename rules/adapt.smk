# Needs: formatted rows and a base. Makes: results/nodes/finetune/..., one checkpoint a run; gives
# their weights up again where the config says so. And results/nodes/merge/..., a base with an adapter
# that was trained elsewhere.


rule finetune:
    """Finetune a base on formatted rows (paper, section 3)."""
    input:
        manifests=upstream_of("finetune"),
    output:
        manifest=marker_output("finetune", "manifest.json"),
        weights=marker_output("finetune", WEIGHTS_MARKER),
    log:
        file_of("finetune", "job.log"),
    benchmark:
        file_of("finetune", "benchmark.tsv")
    conda:
        ENVIRONMENT
    threads: threads_of_finetune
    resources:
        checkpoints=checkpoints_held,
        gpu=gpus_of("finetune"),
    params:
        node=spec_of("finetune"),
    script:
        "../workflow/scripts/finetune.py"


rule merge:
    """Merge a peft adapter that was trained elsewhere into its base."""
    input:
        manifests=upstream_of("merge"),
    output:
        manifest=marker_output("merge", "manifest.json"),
    log:
        file_of("merge", "job.log"),
    benchmark:
        file_of("merge", "benchmark.tsv")
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    params:
        node=spec_of("merge"),
    script:
        "../workflow/scripts/merge.py"


localrules:
    release,


rule release:
    """Give up a checkpoint's weights once every node that loads them is built."""
    input:
        manifests=loading,
    output:
        released=marker_output("finetune", RELEASED_MARKER),
    log:
        file_of("finetune", "release.log"),
    # Before everything else, so that the next finetune finds the disk it needs.
    priority: 2
    conda:
        ENVIRONMENT
    resources:
        checkpoints=checkpoints_held,
    params:
        folder=folder_of("finetune"),
    script:
        "../workflow/scripts/release.py"
