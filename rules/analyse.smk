# Needs: comparisons and finetunes. Makes: results/nodes/table/...


rule table:
    """Build a table, with an interval beside every number."""
    input:
        manifests=upstream_of("table"),
    output:
        manifest=mark_of("table", "manifest.json"),
        rows=report(
            mark_of("table", "data/{table}.csv"),
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
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
