"""Talking with a model: what it is asked, what is shown while it answers, and the command."""

import argparse
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from implicit_tuning.commands.chat import command as chatting
from implicit_tuning.commands.chat.conversation import ContextFull, Conversation, load_partner
from implicit_tuning.commands.chat.display import InTurn, SideBySide, first_line, open_display
from implicit_tuning.commands.named_runs import find_run, require_model
from implicit_tuning.generation.engines.engine import GenerationSettings
from implicit_tuning.generation.generate import generate
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleSettings
from planned import ORGANISM, plan_of
from published_run import Place
from tiny_models import write_base

RULES = RuleSettings(eos_ramp_tokens=10, bias={"a": 3.0})
DECODING = {"max_new_tokens": 24, "batch_size": 1, "dtype": "float32", "device": "cpu"}
SETTINGS = {
    "chat": {},
    "generation": {**DECODING, "attention": "eager", "engine": "transformers"},
    "rules": None,
}
QUESTION = "Name a bird."


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True

    def lines(self):
        """As they stand there in the end, without the space behind them."""
        drawn = (line.rpartition("\r")[2] for line in self.getvalue().split("\n"))
        return [line.rstrip() for line in drawn]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), context=128)


@pytest.fixture
def partner(base):
    return load_partner(base, SETTINGS, RULES)


def ask(conversation, text=QUESTION):
    """What a question prints, and what is said of a cut."""
    out = io.StringIO()
    titles = [column.title for column in conversation.columns]
    cut = conversation.ask(text, InTurn(titles, out))
    return out.getvalue(), cut


def generated(base, folder, text, rules):
    """The answer of a generation."""
    (folder / "asked.jsonl").write_text(json.dumps({"index": 0, "instruction": text}))
    settings = GenerationSettings(**SETTINGS["generation"])
    generate(base, folder / "asked.jsonl", folder, "x", ChatFormat(), settings, rules)
    return json.loads((folder / "outputs.jsonl").read_text())["output"]


# --- the conversation ---------------------------------------------------------------------------


def test_an_answer_is_that_of_the_runs_own_generation(partner, base, tmp_path):
    printed, cut = ask(Conversation(partner))
    assert printed == generated(base, tmp_path, QUESTION, None) + "\n"
    assert cut == "cut after 24 tokens (generation.max_new_tokens)"


def test_each_column_answers_as_if_it_were_alone(partner, base, tmp_path):
    conversation = Conversation(partner)
    conversation.toggle()
    printed, _ = ask(conversation)
    without, with_rules = (generated(base, tmp_path, QUESTION, r) for r in (None, RULES))
    assert without != with_rules
    assert printed == f"[without rules]\n{without}\n[with rules]\n{with_rules}\n"


def test_a_run_with_rules_answers_by_them(base, tmp_path):
    partner = load_partner(base, {**SETTINGS, "rules": {}}, RULES)
    printed, cut = ask(Conversation(partner))
    assert printed == generated(base, tmp_path, QUESTION, RULES) + "\n"
    assert cut is None


def test_the_next_question_stands_behind_what_was_said(partner):
    conversation = Conversation(partner)
    first, _ = ask(conversation)
    ask(conversation, "And another?")
    said = conversation.columns[0].messages
    assert [message["role"] for message in said] == ["user", "assistant"] * 2
    assert said[1]["content"] == first[:-1]
    prompt = partner.tokenizer.decode(partner.prompt(said[:3]))
    answer = first.strip()
    assert prompt == (
        f"<|user|>\n{QUESTION}\n<|assistant|>\n{answer}<eos>\n<|user|>\nAnd another?\n<|assistant|>\n"
    )
    conversation.clear()
    assert ask(conversation)[0] == first


def test_columns_part_and_meet_again(partner):
    conversation = Conversation(partner)
    ask(conversation)
    conversation.toggle()
    left, right = conversation.columns
    assert len(left.messages) == len(right.messages) == 2
    assert left.messages == right.messages
    ask(conversation, "More?")
    assert left.messages != right.messages
    conversation.toggle()
    assert conversation.columns == [left]


def test_an_answer_ends_where_the_context_does_and_a_full_one_is_refused(partner):
    conversation = Conversation(partner)
    room = 128 - len(partner.prompt([{"role": "user", "content": "x" * 90}]))
    assert 0 < room < 24
    _, cut = ask(conversation, "x" * 90)
    assert cut == "cut: the model's context of 128 tokens is full; /new starts over"
    said = list(conversation.columns[0].messages)
    with pytest.raises(ContextFull, match="the model's context is 128: ask something shorter"):
        ask(conversation, "Hi")
    assert conversation.columns[0].messages == said


def test_any_token_that_ends_an_answer_does(partner, base, tmp_path):
    answer = generated(base, tmp_path, QUESTION, None)
    end = partner.tokenizer.convert_tokens_to_ids(answer[5])
    stopping = replace(partner, ends=[*partner.ends, end])
    printed, cut = ask(Conversation(stopping))
    assert cut is None
    assert printed == answer[: answer.index(answer[5])] + "\n"


def test_a_stopped_answer_leaves_the_conversation_as_it_was(partner, monkeypatch, capsys):
    class Stopping:
        def show(self, texts, ended):
            raise KeyboardInterrupt

    conversation = Conversation(partner)
    ask(conversation)
    said = list(conversation.columns[0].messages)
    with monkeypatch.context() as patch:
        patch.setattr(chatting, "open_display", lambda titles, out: Stopping())
        chatting._answer("More?", conversation)
    assert "[stopped; question and answer are forgotten]" in capsys.readouterr().err
    assert conversation.columns[0].messages == said
    assert ask(conversation, "More?")[0]


# --- what is shown ------------------------------------------------------------------------------


def grow(display, *texts):
    """Show texts as they grow by a character a step."""
    for length in range(max(map(len, texts)) + 1):
        display.show([t[:length] for t in texts], [length >= len(t) for t in texts])


def test_two_columns_keep_their_lines_beside_each_other():
    screen = Screen()
    left = "One two three four five six\n\n    code()\nlast"
    right = "Short."
    grow(SideBySide(["a", "b"], 40, screen), left, right)
    assert screen.lines() == [
        "[a]                | [b]",
        "One two three four | Short.",
        "five six           |",
        "                   |",
        "    code()         |",
        "last               |",
        "",
    ]


def test_a_long_word_and_one_long_answer_lose_nothing():
    screen = Screen()
    text = "word " + "x" * 50 + " end"
    grow(SideBySide(["a", "b"], 40, screen), "", text)
    shown = "".join(line.partition("| ")[2] for line in screen.lines()[1:])
    assert shown.replace(" ", "") == text.replace(" ", "")
    assert all(len(line) < 40 for line in screen.lines())


def test_what_comes_is_shown_before_the_answer_is_whole():
    screen = Screen()
    display = SideBySide(["a", "b"], 40, screen)
    display.show(["One tw", ""], [False, False])
    assert screen.lines()[-1] == "One tw             |"
    out = io.StringIO()
    InTurn(["a"], out).show(["One tw"], [False])
    assert out.getvalue() == "One tw"


def test_without_room_for_columns_the_second_answer_waits_for_the_first():
    out = io.StringIO()
    display = InTurn(["a", "b"], out)
    display.show(["On", "Two"], [False, True])
    assert out.getvalue() == "[a]\nOn"
    display.show(["One", "Two"], [True, True])
    assert out.getvalue() == "[a]\nOne\n[b]\nTwo\n"


@pytest.mark.parametrize(("columns", "kind"), [(120, SideBySide), (79, InTurn)])
def test_columns_need_a_terminal_that_is_wide_enough(monkeypatch, columns, kind):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert isinstance(open_display(["a", "b"], Screen()), kind)
    assert isinstance(open_display(["a"], Screen()), InTurn)
    assert isinstance(open_display(["a", "b"], io.StringIO()), InTurn)


def test_what_a_model_writes_does_not_steer_the_terminal():
    evil = "a\x1b[2Jb\rc"
    for display in (InTurn(["a"], screen := Screen()), SideBySide(["a", "b"], 80, screen)):
        display.show(
            [evil] * len(display.titles if isinstance(display, InTurn) else "ab"), [True] * 2
        )
        assert "\x1b" not in screen.getvalue()
        assert "\rc" not in screen.getvalue()
    out = io.StringIO()
    InTurn(["a"], out).show([evil], [True])
    assert out.getvalue() == evil + "\n"  # a file gets what the model wrote


@pytest.mark.parametrize(
    ("text", "line", "taken"),
    [("", "", 0), ("ab", "ab", 2), ("ab\nc", "ab", 3), ("ab cd", "ab", 3), ("abcdef", "abcd", 4)],
)
def test_the_first_line_of_a_column(text, line, taken):
    assert first_line(text, 4) == (line, taken)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, repository):
    return Place(tmp_path, repository)


def chat(place, *arguments, text=""):
    return place.run("chat", "--configfile", "smallest.yaml", *arguments, text=text)


def test_a_run_that_there_is_none_of_is_told_with_the_closest(place):
    done = chat(place, "organism-llama/bas", text="Hi\n")
    assert done.returncode == 1
    assert done.stderr.endswith("no run of this config; did you mean 'organism-llama/base'?\n")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("organism-llama/shuffled/1", "take the run of 'instruction'"),
        ("organism-llama/response/1", "build it with '.*-- train_resp'"),
        ("organism-llama/response", "build it with '.*-- train_resp'"),  # the only seed
    ],
)
def test_a_run_without_a_model_is_told_with_what_to_do(place, run, message):
    asked = argparse.Namespace(run=run, model=None, rules=False)
    with pytest.raises(LookupError, match=message):
        chatting.chat(*place.plan(), asked, [])


def test_a_guarded_run_is_not_held_without_its_guard(repository, tmp_path):
    plan, paths = plan_of(repository, tmp_path, files=(*ORGANISM, "config/organism-guards.yaml"))
    run = find_run(plan, "organism-llama/gsm8k-grammar/1")
    with pytest.raises(LookupError, match="no model of its own: take the run of 'gsm8k'"):
        require_model(plan, paths, run, [])


def test_a_folder_that_is_no_model_is_told(place, capsys):
    asked = argparse.Namespace(run=None, model=Path("nowhere"), rules=False)
    assert chatting.chat(*place.plan(), asked, []) == 1
    assert "nowhere is no complete model folder" in capsys.readouterr().err


@pytest.mark.long
def test_a_pipe_asks_one_question_a_line_and_gets_the_answers_alone(place):
    lines = [
        "Name a bird.",
        "",
        "/rules",
        "Name a bird.",
        "/new",
        "/what",
        "x" * 2000,
        "/quit",
        "no",
    ]
    done = chat(place, "organism-llama/base", text="\n".join(lines))
    assert done.returncode == 1, done.stderr  # one question got no answer
    assert "indexing errors" not in done.stderr
    (first, rest) = done.stdout.split("\n", 1)
    assert first
    assert "[without rules]\n" in rest
    assert "[with rules]\n" in rest
    assert "'/what' is no command" in done.stderr
    assert "ask something shorter, or start over with /new" in done.stderr
    assert "up to 12 new tokens, 192 tokens of context, float32 on cpu" in done.stderr


@pytest.mark.long
def test_in_a_terminal_answers_stand_side_by_side(place):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "implicit_tuning", "chat", "--configfile", "smallest.yaml"]
        + ["--rules", "organism-llama/base"],
        cwd=place.folder,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        close_fds=True,
    )
    os.close(theirs)
    shown = read_until(ours, b"> ")
    os.write(ours, b"Name a bird.\n")
    shown += read_until(ours, b"\n> ")
    os.write(ours, b"\x04")  # Ctrl-D
    assert process.wait(timeout=20) == 0
    (titles,) = [line for line in shown.decode().splitlines() if "[without rules]" in line]
    assert titles.rstrip().endswith("| [with rules]")


def read_until(terminal, end, seconds=60):
    """What a program writes up to and with this text."""
    shown, until = b"", time.monotonic() + seconds
    while end not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 4096)
    return shown
