"""`chat`: talk with the model of a run in the terminal, or through a pipe, one line a turn.

Answers are greedy, with the settings of the run's own generation. Each column of the conversation
has a history of its own: with the rules and without them a model answers differently, and so the
next question stands behind another text.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from implicit_tuning.commands.chat.display import open_display
from implicit_tuning.commands.named_runs import checked_folder, find_run, require_model, run_name
from implicit_tuning.commands.planned import planned, snakemake_options
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.runs import rule_settings
from implicit_tuning.nodes.node import NodePaths

if TYPE_CHECKING:
    from implicit_tuning.commands.chat import conversation as talk

COMMANDS = """\
/new    start over
/rules  answer without and with the rules, side by side; again: as before
/help   this list
/quit   end, as Ctrl-D does; Ctrl-C stops an answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "run", nargs="?", metavar="RUN", help="base/adaptation/seed; base/rules and base/base too"
    )
    which.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a model folder, with the settings of the config; asked by its own chat template if "
        "it has one",
    )
    parser.add_argument(
        "--rules", action="store_true", help="answer without and with the rules, side by side"
    )


def run(arguments: argparse.Namespace) -> int:
    """Talk until the end of the input; returns the exit status."""
    return chat(*planned(arguments), arguments, snakemake_options(arguments))


def chat(plan: Plan, paths: NodePaths, arguments: argparse.Namespace, options: list[str]) -> int:
    """Talk until the end of the input; returns the exit status.

    Args:
        options: of Snakemake, that name the config; for what is said of a model that is not built.

    Raises:
        LookupError, BrokenArtifact: there is no such run, or its model is not there or damaged.
    """
    try:
        title, partner = _load(plan, paths, arguments, options)
        # Torch is imported when it is known that there is a model to load.
        from implicit_tuning.commands.chat.conversation import Conversation

        conversation = Conversation(partner)
        if arguments.rules:
            conversation.toggle()
        _say(f"{title}: {partner.describe()}; /help lists the commands")
        answered = True
        for line in _lines(sys.stdin):
            if line == "/quit":
                break
            answered &= _answer(line, conversation)
    except (ValueError, OSError, MemoryError) as error:
        _say(str(error))
        return 1
    # Who pipes questions must not take some answers for all; who types has seen it.
    return 0 if answered or sys.stdin.isatty() else 1


def _load(
    plan: Plan, paths: NodePaths, arguments: argparse.Namespace, options: list[str]
) -> tuple[str, "talk.Partner"]:
    """Name of what is asked for, and its model."""
    if arguments.model is not None:
        return str(arguments.model), _load_folder(plan, arguments.model)
    run = find_run(plan, arguments.run)
    folder = checked_folder(paths, require_model(plan, paths, run, options))
    engine = run.settings["generation"]["engine"]
    if engine != "transformers":
        _say(f"the answers of the run are by {engine}, these by transformers")
    return run_name(run), _load_partner(plan, folder, run.settings)


def _load_folder(plan: Plan, folder: Path) -> "talk.Partner":
    from implicit_tuning.models.folder import load_tokenizer

    own = load_tokenizer(folder).chat_template is not None
    _say("asked by its own chat template" if own else "it has no chat template: asked by ours")
    chat = {**plan.config.chat, "own_template": own}
    settings = {"chat": chat, "generation": plan.config.generation, "rules": None}
    return _load_partner(plan, folder, settings)


def _load_partner(plan: Plan, folder: Path, settings: Mapping) -> "talk.Partner":
    """With the rules of the run, or all that there are under the config's settings."""
    from implicit_tuning.commands.chat.conversation import load_partner
    from implicit_tuning.models.rule_adapter import RULES, RuleSettings

    rules = settings["rules"] or rule_settings(plan.config, {"rules": RULES})
    return load_partner(folder, settings, RuleSettings(**rules))


def _answer(line: str, conversation: "talk.Conversation") -> bool:
    """One line of the input, a command or a question; returns whether it was not refused."""
    try:
        if line == "/new":
            conversation.clear()
            _say("started over")
        elif line == "/rules":
            conversation.toggle()
            _say(" | ".join(column.title for column in conversation.columns))
        elif line.startswith("/"):
            _say(COMMANDS if line == "/help" else f"'{line}' is no command\n{COMMANDS}")
        elif line:
            titles = [column.title for column in conversation.columns]
            cut = conversation.ask(line, open_display(titles, sys.stdout))
            if cut is not None:
                _say(f"[{cut}]")
    except KeyboardInterrupt:
        _say("\n[stopped; question and answer are forgotten]")
    except ValueError as error:
        _say(str(error))
        return False
    return True


def _lines(source: TextIO) -> Iterator[str]:
    """Lines of the input, without outer white space, until its end or Ctrl-C."""
    if not source.isatty():
        if isinstance(source, TextIOWrapper):
            source.reconfigure(errors="replace")
        yield from (line.strip() for line in source)
        return
    import readline  # noqa: F401 - gives `input` editing and a history

    while True:
        try:
            yield input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return


def _say(text: str) -> None:
    """To standard error: standard output has the answers alone."""
    print(text, file=sys.stderr, flush=True)
