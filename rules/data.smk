# Needs: sources (the organism's generators, pinned hub files, local files).
# Makes: results/nodes/download/... and results/nodes/format/...


# Where Snakemake runs: nodes of a cluster often have no network, and a format is needed at once.
localrules:
    download,
    format,


rule download:
    """Fetch a pinned hub file, or write a source of the model organism."""
    output:
        manifest=marker_output("download", "manifest.json"),
    log:
        file_of("download", "job.log"),
    benchmark:
        file_of("download", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("download"),
    script:
        "../workflow/scripts/download.py"


checkpoint format:
    """Build messages or instructions from upstream rows; keys below it use its content."""
    input:
        manifests=upstream_of("format"),
    output:
        manifest=marker_output("format", "manifest.json"),
    log:
        file_of("format", "job.log"),
    benchmark:
        file_of("format", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("format"),
    script:
        "../workflow/scripts/format.py"
