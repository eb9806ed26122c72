# Needs: a run's answers and its reference's. Makes: results/nodes/judge/..., one comparison each.


rule judge:
    """Compare a run with the reference run of the same base and seed."""
    input:
        upstream_of("judge"),
    output:
        manifest=folder_pattern(RESULTS, "judge") + "/manifest.json",
    log:
        folder_pattern(RESULTS, "judge") + "/job.log",
    benchmark:
        folder_pattern(RESULTS, "judge") + "/benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        node=spec_of("judge"),
    script:
        "../workflow/scripts/judge.py"


def judged_group(group):
    """Input function: asks for the comparisons of one data set while any is missing.

    One request a data set lets all others go on when one formatter fails: tables wait for all.
    """

    def inputs(wildcards):
        nodes = PLAN.groups()[group]
        if all(is_built(PATHS, node) for node in nodes):
            return []
        key = short_hash([node.plan_key for node in nodes])
        return f"{RESULTS}/partial/judged/{group}.{key}"

    return inputs


localrules:
    judged,


rule judged:
    """All comparisons of the runs that were trained on one data set."""
    input:
        lambda wildcards: manifests(PLAN.groups()[wildcards.group]),
    output:
        temp(touch(f"{RESULTS}/partial/judged/{{group}}.{{key}}")),
