# Needs: comparisons and finetunes. Makes: results/nodes/table/...


rule table:
    """Build a table, with an interval beside every number."""
    input:
        manifests=upstream_of("table"),
    output:
        manifest=file_of("table", "manifest.json"),
    log:
        file_of("table", "job.log"),
    benchmark:
        file_of("table", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("table"),
    script:
        "../workflow/scripts/table.py"
