"""Run a command, and print what it used: CPU seconds and peak resident KB, with its children.

A process starts with the peak memory of the one that forked it, so this one is kept small and
stands between a benchmark and what it measures.
"""

import json
import os
import subprocess
import sys


def main() -> int:
    """Run the command of the arguments; returns its exit status."""
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    # wait4 alone tells the usage of this child and its children from that of the others.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
