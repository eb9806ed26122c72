# Needs: nothing. Makes: results/nodes/pretrain/..., only with `pretrain_base: rebuild`.


rule pretrain:
    """Pretrain a base of the model organism from its recipe."""
    output:
        manifest=folder_pattern(RESULTS, "pretrain") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "pretrain") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "pretrain") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    params:
        node=spec_of("pretrain"),
    script:
        "../workflow/scripts/pretrain.py"
