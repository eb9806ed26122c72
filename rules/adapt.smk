# Needs: formatted rows and a base. Makes: results/nodes/finetune/..., one checkpoint a run.


rule finetune:
    """Finetune a base on formatted rows (paper, section 3)."""
    input:
        upstream_of("finetune"),
    output:
        manifest=file_of("finetune", "manifest.json"),
    log:
        file_of("finetune", "job.log"),
    benchmark:
        file_of("finetune", "benchmark.tsv")
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    params:
        node=spec_of("finetune"),
    script:
        "../workflow/scripts/finetune.py"
