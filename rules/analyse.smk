# Needs: checkpoints, answers, comparisons. Makes: results/nodes/{rank,similarity,select,table}/...


rule rank:
    """Rank real responses against random ones by a model's probabilities (paper, section 4)."""
    input:
        manifests=upstream_of("rank"),
        weights=weights_of("rank"),
    output:
        manifest=marker_output("rank", "manifest.json"),
    log:
        file_of("rank", "job.log"),
    benchmark:
        file_of("rank", "benchmark.tsv")
    # As for answers: checkpoints can be given up sooner.
    priority: 1
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    resources:
        checkpoints=checkpoints_held,
        gpu=gpus_of("rank"),
    params:
        node=spec_of("rank"),
    script:
        "../workflow/scripts/rank.py"


rule similarity:
    """Measure how near a single-task run's answers stay to its task (paper, section 5.2)."""
    input:
        manifests=upstream_of("similarity"),
    output:
        manifest=marker_output("similarity", "manifest.json"),
    log:
        file_of("similarity", "job.log"),
    benchmark:
        file_of("similarity", "benchmark.tsv")
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.runtime["threads"]
    resources:
        gpu=gpus_of("similarity"),
    params:
        node=spec_of("similarity"),
    script:
        "../workflow/scripts/similarity.py"


localrules:
    measured,
    select,


rule measured:
    """One way to measure the runs that were trained on one data set, for all of them."""
    input:
        manifests=measures_of_group,
    output:
        temp(touch(measured_marker("{group}", "{key}"))),


# Where Snakemake runs: seconds each, and the finetunes that wait for it are planned anew.
checkpoint select:
    """Choose the number of epochs of an adaptation on the validation set (paper, section 3)."""
    input:
        manifests=upstream_of("select"),
    output:
        manifest=marker_output("select", "manifest.json"),
    log:
        file_of("select", "job.log"),
    benchmark:
        file_of("select", "benchmark.tsv")
    conda:
        ENVIRONMENT
    params:
        node=spec_of("select"),
    script:
        # A script called select would hide Python's own module of that name.
        "../workflow/scripts/select_epochs.py"


rule table:
    """Build a table, with an interval beside every number."""
    input:
        manifests=upstream_of("table"),
    output:
        manifest=marker_output("table", "manifest.json"),
        rows=report(
            marker_output("table", "data/{table}.csv"),
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
