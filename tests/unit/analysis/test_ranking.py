"""Response ranking: scores against a plain loop, draws, cuts and what is refused."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from implicit_tuning.analysis.ranking import (
    RankedPair,
    RankingReport,
    RankingSettings,
    draw_responses,
    rank,
    read_pairs,
)
from implicit_tuning.models.chat import ChatFormat, prompt_text, tokenize_prompt
from implicit_tuning.nodes.digests import file_sha256, source_sha256
from implicit_tuning.nodes.job import building
from rank import rank_node
from tiny_models import character_tokenizer, random_model, write_base

FORMAT = ChatFormat()
SETTINGS = RankingSettings(
    random_responses=3,
    max_length=120,
    batch_size=4,
    dtype="float32",
    device="cpu",
    attention="sdpa",
)
EXCHANGES = [
    ("Name a tree.", "An oak."),
    ("Name a river.", " The Zorv\n"),
    ("Name another tree.", "An oak. "),
    ("Count to three.", "1, 2, 3"),
    ("Name a color.", "Green, as grass is in spring"),
    ("Say no.", "no"),
]


def write_pairs(path, exchanges=EXCHANGES, **changes):
    rows = [
        {
            "messages": [
                {"role": "user", "content": instruction},
                {"role": "assistant", "content": response},
                {"role": "user", "content": "And then?"},
                {"role": "assistant", "content": "Never looked at."},
            ],
            "source_row": 10 + number,
        }
        | changes
        for number, (instruction, response) in enumerate(exchanges)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def run(base, folder, settings=SETTINGS, exchanges=EXCHANGES):
    folder.mkdir(exist_ok=True)
    pairs = write_pairs(folder / "rows.jsonl", exchanges)
    report = rank(base, pairs, folder / "data", FORMAT, settings)
    return report, [json.loads(line) for line in (folder / "data/scores.jsonl").open()]


@torch.no_grad()
def score_by_hand(instruction, response, limit):
    """Mean log-probability of the response's tokens within the limit, one sequence at a time."""
    tokenizer = character_tokenizer()
    model = random_model(len(tokenizer))
    prompt = tokenizer(prompt_text(instruction, FORMAT))["input_ids"]
    whole = tokenizer(prompt_text(instruction, FORMAT) + response.strip())["input_ids"][:limit]
    log_probabilities = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    scores = [
        log_probabilities[place - 1, whole[place]].item()
        for place in range(len(prompt), len(whole))
    ]
    return sum(scores) / len(scores)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("max_length", [120, 55])
def test_scores_are_those_of_a_plain_loop(base, tmp_path, batch_size, max_length):
    settings = replace(SETTINGS, batch_size=batch_size, max_length=max_length)
    report, lines = run(base, tmp_path, settings)
    assert [line["source_row"] for line in lines] == [10, 11, 12, 13, 14, 15]
    for (instruction, response), line in zip(EXCHANGES, lines, strict=True):
        others = [EXCHANGES[row - 10][1] for row in line["random_rows"]]
        real, *rest = (score_by_hand(instruction, text, max_length) for text in (response, *others))
        assert line["real"] == pytest.approx(real, abs=1e-5)
        assert line["random"] == pytest.approx(rest, abs=1e-5)
        # The paper's score is the exponential of the mean; it orders alike.
        assert line["n_won"] == sum(math.exp(real) > math.exp(other) for other in rest)
    assert report.won == sum(line["n_won"] for line in lines)
    assert (report.pairs, report.comparisons) == (6, 18)
    assert (report.n_cut > 0) == (max_length == 55)


def test_cut_responses_are_counted(base, tmp_path):
    tokenizer = character_tokenizer()
    limit = 55
    report, lines = run(base, tmp_path, replace(SETTINGS, max_length=limit))
    expected = 0
    for (instruction, response), line in zip(EXCHANGES, lines, strict=True):
        room = limit - len(tokenize_prompt(instruction, tokenizer, FORMAT))
        texts = [response, *(EXCHANGES[row - 10][1] for row in line["random_rows"])]
        expected += sum(len(text.strip()) > room for text in texts)
    assert report.n_cut == expected > 0


def test_a_random_response_is_never_the_real_one_nor_drawn_twice(base, tmp_path):
    report, lines = run(base, tmp_path)
    for (_, response), line in zip(EXCHANGES, lines, strict=True):
        others = [EXCHANGES[row - 10][1].strip() for row in line["random_rows"]]
        assert response.strip() not in others
        assert len(set(others)) == SETTINGS.random_responses
    assert report.n_excluded > 0  # rows 10 and 12 have one response in common


def test_draws_depend_on_the_pairs_alone(base, tmp_path):
    other = write_base(tmp_path / "olmo", "olmo")
    rows = [
        [line["random_rows"] for line in run(model, tmp_path / name)[1]]
        for name, model in (("a", base), ("b", other))
    ]
    assert rows[0] == rows[1]
    again = run(base, tmp_path / "c")
    assert (tmp_path / "c/data/scores.jsonl").read_bytes() == (
        tmp_path / "a/data/scores.jsonl"
    ).read_bytes()
    assert again[0] == run(base, tmp_path / "a")[0]


def test_draws_reach_all_other_rows():
    pairs = [RankedPair(number, "i", f"response {number}") for number in range(40)]
    draws = draw_responses(pairs, 5)
    assert sum(drawn.n_excluded for drawn in draws) == 0
    reached = {place for drawn in draws for place in drawn.rows}
    assert len(reached) == 40
    assert all(own not in drawn.rows for own, drawn in enumerate(draws))


def test_equal_scores_are_no_win(base, tmp_path):
    """Cut to one token, responses with one first letter score alike: in one batch all are read off
    the same logits of the prompt, so that no rounding parts them."""
    exchanges = [("Go", f"a{number}") for number in range(4)]
    length = len(tokenize_prompt("Go", character_tokenizer(), FORMAT)) + 1
    settings = replace(SETTINGS, max_length=length, batch_size=16)
    report, lines = run(base, tmp_path, settings, exchanges)
    assert report == RankingReport(pairs=4, comparisons=12, won=0, n_cut=16, n_excluded=0)
    assert all(set(line["random"]) == {line["real"]} for line in lines)


def test_the_context_of_the_model_is_a_limit_too(tmp_path):
    base = write_base(tmp_path / "short", context=60)
    report, _ = run(base, tmp_path / "run", replace(SETTINGS, max_length=1024))
    assert report.n_cut > 0


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        (("Name a hill.", " \n"), r"source row 16 .*an instruction and a response"),
        ((" ", "A hill."), r"source row 16 .*has both in every row"),
        (("word " * 30, "A hill."), r"source row 16 makes a prompt of \d+ tokens.*within 120"),
        (("Name a hill.", "\u00e9"), r"source row 16, '\u00e9', has no token"),
    ],
    ids=["no response", "no instruction", "long prompt", "no token"],
)
def test_pairs_that_cannot_be_ranked_are_refused(base, tmp_path, exchange, message):
    with pytest.raises(ValueError, match=message):
        run(base, tmp_path, exchanges=[*EXCHANGES, exchange])


def test_rows_of_another_shape_are_refused(tmp_path):
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    path = write_pairs(tmp_path / "rows.jsonl", messages=turns)
    with pytest.raises(ValueError, match="source row 10 .*'system'"):
        read_pairs(path)


def test_too_few_different_responses_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match="3 random responses .* from 2 different .* at most 1"):
        run(base, tmp_path, exchanges=EXCHANGES[:3])
    with pytest.raises(ValueError, match="from 0 different"):
        run(base, tmp_path, exchanges=[])


def test_a_missing_gpu_is_said(base, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="set device to 'cpu'"):
        run(base, tmp_path, replace(SETTINGS, device="cuda"))


def test_the_script_ranks_as_its_node_says(base, tmp_path, make_spec):
    pairs = write_pairs(tmp_path / "rows.jsonl")
    upstream = {
        "model": {"source": str(base), "digest": source_sha256(base)},
        "pairs": {"source": str(pairs), "digest": file_sha256(pairs)},
    }
    settings = {"chat": asdict(FORMAT), "ranking": asdict(SETTINGS)}
    levels = ("b", "a", "1", "e")
    spec = make_spec("generate", levels, settings=settings, upstream=upstream)
    with building(spec) as job:
        job.facts.update(asdict(rank_node(job)))
    folder = tmp_path.joinpath("results/nodes/generate", *levels, "k1")
    written = (folder / "data/scores.jsonl").read_bytes()
    run(base, tmp_path / "direct")
    assert written == (tmp_path / "direct/data/scores.jsonl").read_bytes()
    assert json.loads((folder / "manifest.json").read_text())["facts"]["pairs"] == 6
