"""Commands that another program reads."""

import os
import subprocess
import sys


def test_a_reader_who_has_seen_enough_is_told_nothing_more(repository):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m implicit_tuning explain table | true"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository / "workflow/scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")
