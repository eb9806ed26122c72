# Needs: nothing. Makes: results/nodes/pretrain/..., only with `pretrain_base: rebuild`.


rule pretrain:
    """Pretrain a base of the model organism from its recipe."""
    output:
        manifest=mark_of("pretrain", "manifest.json"),
    log:
        file_of("pretrain", "job.log"),
    benchmark:
        file_of("pretrain", "benchmark.tsv")
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    params:
        node=spec_of("pretrain"),
    script:
        "../workflow/scripts/pretrain.py"
