# Needs: comparisons and finetunes. Makes: results/nodes/table/...


rule table:
    """Build a table, with an interval beside every number."""
    input:
        upstream_of("table"),
    output:
        manifest=folder_pattern(RESULTS, "table") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "table") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "table") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        node=spec_of("table"),
    script:
        "../workflow/scripts/table.py"
