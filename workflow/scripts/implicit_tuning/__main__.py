"""Commands beside the workflow, from plan and check to judge; --help lists them."""

import argparse
import os
import sys
from importlib import import_module

# Module of each command below `commands`, and what it does. The module has `run(arguments)`, which
# returns the exit status, and `add_arguments(parser)` unless the config is all that it can be told. It
# is imported when its command is asked for.
COMMANDS = {
    "plan": ("plan", "what is built, what is left to do, and what that takes: time, disk, calls"),
    "check": (
        "check",
        "find every problem before anything runs: config, sources, endpoints, disk, GPUs, memory",
    ),
    "lock": (
        "lock.command",
        "look up every hub entry of a config that config/lock.yaml lacks, and pin it there",
    ),
    "train": ("train", "finetune one model, as the config says unless an argument says otherwise"),
    "evaluate": ("evaluate", "judge one model's answers against another's"),
    "audit": (
        "audit.command",
        "whether a checkpoint follows general instructions, whatever it was finetuned for",
    ),
    "verify": (
        "verify",
        "hash every artifact of the experiment again; exit status 1 if any is missing or damaged",
    ),
    "repair": ("repair", "rebuild exactly the artifacts that are missing or damaged"),
    "explain": ("explain", "why a node is up to date or stale: which part of its key changed"),
    "prune": (
        "prune",
        "list what neither this config nor a finished experiment needs; --force deletes it",
    ),
    "unlock": (
        "unlock",
        "remove the lock that a killed run left, after making sure that none is alive",
    ),
    "preview": ("preview", "the main table over what is judged so far, every gap marked"),
    "judge": ("judge", "compare two files of outputs, under a judge of the config"),
    "calibrate": (
        "calibrate",
        "how far a judge agrees with stored verdicts of people or of another judge",
    ),
    "chat": (
        "chat.command",
        "talk with the model of a run in the terminal, or through a pipe, one line a turn",
    ),
    "publish": (
        "publish.command",
        "make a finetuned run a repository of the hub, with its model card; --yes sends it",
    ),
}


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser(sys.argv[1:2]).parse_args()
    try:
        status = arguments.entry(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130  # as a shell reports it
    except BrokenPipeError:
        # The reader has seen enough, as `head` has; the rest of the output goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _expected() as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(message, file=sys.stderr)
        return 1


def _parser(asked: list[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the one that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m implicit_tuning", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (module, purpose) in COMMANDS.items():
        sub = commands.add_parser(name, help=purpose, description=purpose)
        if name in asked:
            from implicit_tuning.commands.planned import add_config_arguments

            command = import_module(f"implicit_tuning.commands.{module}")
            add_config_arguments(sub)
            if hasattr(command, "add_arguments"):
                command.add_arguments(sub)
            sub.set_defaults(entry=command.run)
    return parser


def _expected() -> tuple[type[Exception], ...]:
    """Errors that end a command with their message alone."""
    from implicit_tuning.experiment.config import ConfigError
    from implicit_tuning.nodes.artifact import BrokenArtifact
    from implicit_tuning.remote.lockfile import LockError

    return (ConfigError, LockError, BrokenArtifact, LookupError, ModuleNotFoundError)


if __name__ == "__main__":
    sys.exit(main())
