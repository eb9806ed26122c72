# Needs: sources (the organism's generators, pinned hub files, local files).
# Makes: results/nodes/download/... and results/nodes/format/...


rule download:
    """Fetch a pinned hub file, or write a source of the model organism."""
    output:
        manifest=folder_pattern(RESULTS, "download") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "download") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "download") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        node=spec_of("download"),
    script:
        "../workflow/scripts/download.py"


localrules:
    format,


checkpoint format:
    """Build messages or instructions from upstream rows; keys below it use its content."""
    input:
        upstream_of("format"),
    output:
        manifest=folder_pattern(RESULTS, "format") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "format") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "format") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        node=spec_of("format"),
    script:
        "../workflow/scripts/format.py"
