"""What a module imports, in a process of its own."""

import subprocess
import sys

IMPORT = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"


def imported_by(module, scripts):
    run = [sys.executable, "-c", IMPORT, module]
    environment = {"PYTHONPATH": str(scripts), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())
