# Needs: tables, and the manifests of all nodes. Makes: results/nodes/{figure,report,audit}/... and
# the stable names of the experiment.


rule figure:
    """Draw a figure from a table."""
    input:
        manifests=upstream_of("figure"),
    output:
        manifest=mark_of("figure", "manifest.json"),
        drawing=report(
            mark_of("figure", "data/{figure}.svg"),
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        file_of("figure", "job.log"),
    benchmark:
        file_of("figure", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("figure"),
    script:
        "../workflow/scripts/figure.py"


rule report:
    """Write the report of the experiment, one page that says whence each number comes."""
    input:
        manifests=upstream_of("report"),
    output:
        manifest=mark_of("report", "manifest.json"),
    log:
        file_of("report", "job.log"),
    benchmark:
        file_of("report", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("report"),
    script:
        "../workflow/scripts/report.py"


rule audit:
    """Write the page of an audited checkpoint: whether it follows general instructions, and how well."""
    input:
        manifests=upstream_of("audit"),
    output:
        manifest=mark_of("audit", "manifest.json"),
    log:
        file_of("audit", "job.log"),
    benchmark:
        file_of("audit", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("audit"),
    script:
        "../workflow/scripts/audit.py"


localrules:
    publish,


rule publish:
    """Copy report, tables and figures to the experiment's stable names, and link its nodes."""
    input:
        manifests=published_upstream,
    output:
        update(f"{RESULTS}/{EXPERIMENT.experiment}/.published.{{key}}"),
    log:
        f"{RESULTS}/{EXPERIMENT.experiment}/.log/publish.{{key}}.log",
    benchmark:
        f"{RESULTS}/{EXPERIMENT.experiment}/.log/publish.{{key}}.tsv"
    conda:
        ENVIRONMENT
    params:
        nodes=published_nodes,
    script:
        "../workflow/scripts/publish.py"
