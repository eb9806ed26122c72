# Needs: a run's answers and its reference's. Makes: results/nodes/judge/..., one comparison each.


rule judge:
    """Compare a run with the reference run of the same base and seed."""
    input:
        manifests=upstream_of("judge"),
    output:
        manifest=marker_output("judge", "manifest.json"),
    log:
        file_of("judge", "job.log"),
    benchmark:
        file_of("judge", "benchmark.tsv")
    conda:
        ENVIRONMENT
    resources:
        gpu=gpus_of("judge"),
    params:
        node=spec_of("judge"),
    script:
        "../workflow/scripts/judge.py"
