# Needs: formatted rows and a base. Makes: results/nodes/finetune/..., one checkpoint a run.


rule finetune:
    """Finetune a base on formatted rows (paper, section 3)."""
    input:
        upstream_of("finetune"),
    output:
        manifest=folder_pattern(RESULTS, "finetune") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "finetune") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "finetune") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    params:
        node=spec_of("finetune"),
    script:
        "../workflow/scripts/finetune.py"
