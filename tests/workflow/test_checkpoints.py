"""What becomes of other jobs when a checkpoint ends and Snakemake plans anew."""


def append(checkout, script, statement):
    file = checkout.folder / "workflow/scripts" / script
    file.write_text(f"{file.read_text()}    import time\n    {statement}\n")


def test_a_job_whose_file_stands_before_it_is_seen_to_end_keeps_those_that_wait_for_it(
    new_checkout,
):
    checkout = new_checkout()
    adaptations = checkout.config["adaptations"]
    for name in set(adaptations) - {"instruction", "chess"}:
        del adaptations[name]
    # Both other formats end in the seconds in which this download has its manifest, but goes on.
    append(checkout, "format.py", "time.sleep(1)")
    append(checkout, "download.py", 'time.sleep(6 * ("lima" in snakemake.wildcards.dataset))')
    run = checkout.run("--cores", "4", "data")
    assert run.status == 0
    assert run.jobs == {"download": 3, "format": 3}
