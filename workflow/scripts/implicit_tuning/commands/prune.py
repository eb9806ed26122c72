"""`prune`: list, or delete, what neither a config nor a finished experiment needs."""

import argparse
import shutil

from implicit_tuning.commands import upkeep
from implicit_tuning.commands.planned import planned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--force", action="store_true", help="delete what is listed")


def run(arguments: argparse.Namespace) -> int:
    """Print each folder with its size, and delete it if that is asked for."""
    made, paths = planned(arguments)
    if arguments.force:
        if upkeep.refuse_while_running("delete"):
            return 1
        for node in made.nodes.values():
            paths.key(node)  # nothing is deleted while a key is not known: the node may be needed
    total = 0
    for path in upkeep.unneeded(made, paths):
        size = upkeep.folder_size(path)
        total += size
        print(f"{size / 1e6:10.1f} MB  {path}")
        if arguments.force:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{total / 1e6:10.1f} MB  {'deleted' if arguments.force else 'in all; nothing deleted'}")
    return 0
