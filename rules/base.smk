# Needs: nothing. Makes: results/nodes/fetch/..., the models of the hub that a config names (bases,
# local judges, embeddings), and results/nodes/pretrain/..., only with `pretrain_base: rebuild`.


# Where Snakemake runs: nodes of a cluster often have no network.
localrules:
    fetch,


rule fetch:
    """Fetch a model from the hub at a pinned revision."""
    output:
        manifest=marker_output("fetch", "manifest.json"),
    log:
        file_of("fetch", "job.log"),
    benchmark:
        file_of("fetch", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("fetch"),
    script:
        "../workflow/scripts/fetch.py"


rule pretrain:
    """Pretrain a base of the model organism from its recipe."""
    output:
        manifest=marker_output("pretrain", "manifest.json"),
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
