# Needs: tables, and the manifests of all nodes. Makes: results/nodes/{figure,report,audit}/... and
# the stable names of the experiment.


rule figure:
    """Draw a figure from a table."""
    input:
        manifests=upstream_of("figure"),
    output:
        manifest=marker_output("figure", "manifest.json"),
        drawing=report(
            marker_output("figure", "data/{figure}.svg"),
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
        manifest=marker_output("report", "manifest.json"),
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
        manifest=marker_output("audit", "manifest.json"),
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
    stable_names,


rule stable_names:
    """Copy report, tables and figures to the experiment's stable names, and link its nodes."""
    input:
        manifests=copied_manifests,
    output:
        update(f"{RESULTS}/{EXPERIMENT.experiment}/.stable_names.{{key}}"),
    log:
        f"{RESULTS}/{EXPERIMENT.experiment}/.log/stable_names.{{key}}.log",
    benchmark:
        f"{RESULTS}/{EXPERIMENT.experiment}/.log/stable_names.{{key}}.tsv"
    conda:
        ENVIRONMENT
    params:
        nodes=folders_by_name,
    script:
        "../workflow/scripts/stable_names.py"
