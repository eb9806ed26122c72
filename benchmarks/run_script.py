"""Run a script of the workflow as Snakemake does, without it, and print which modules it loaded."""

import json
import runpy
import sys
from types import SimpleNamespace


def main() -> int:
    """Run the script of the arguments on a node's spec; returns the exit status."""
    script, spec, log = sys.argv[1:]
    snakemake = SimpleNamespace(params=SimpleNamespace(node=spec), log=[log])
    runpy.run_path(script, {"snakemake": snakemake}, "__main__")
    print(json.dumps(sorted(sys.modules)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
