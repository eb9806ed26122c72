"""Configs: what is wrong is found before any job starts, with key, value and fix."""

import copy
import json
import shutil

import pytest
import yaml

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config, read_config


@pytest.fixture
def root(tmp_path, repository):
    """A copy of the configs in a folder with model folders and data of its own."""
    shutil.copytree(repository / "config", tmp_path / "config")
    for base in ("llama", "olmo"):
        folder = tmp_path / "resources/organism" / base
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_text("{}")
    return tmp_path


@pytest.fixture
def raw(root):
    return yaml.safe_load((root / "config/config.yaml").read_text())


def changed(raw, dotted, value):
    """A copy of the config with one key set; None removes it."""
    copied = copy.deepcopy(raw)
    *parents, last = dotted.split("/")
    place = copied
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


def test_the_default_config_is_valid(root):
    config = read_config([root / "config/config.yaml"], root)
    assert config.experiment == "organism"
    assert config.bases["organism-llama"]["path"] == root / "resources/organism/llama"


@pytest.mark.parametrize("name", ["organism-full", "organism-selection", "organism-guards"])
def test_configs_over_the_default_are_valid_and_named_after_their_file(root, name):
    files = [root / "config" / f"{file}.yaml" for file in ("config", name)]
    assert read_config(files, root).experiment == name


def test_every_ablation_of_the_full_organism_varies_the_setting_it_names(root):
    files = [root / "config" / f"{file}.yaml" for file in ("config", "organism-full")]
    config = read_config(files, root)
    assert len(config.ablations) == 9
    for ablation in config.ablations.values():
        assert set(ablation["adaptations"]) <= set(config.adaptations)
    subsets = [
        frozenset(config.adaptations[name].get("rules", ()))
        for name in config.ablations["rules"]["adaptations"]
    ]
    assert len(set(subsets)) == len(subsets) == 2**3


def test_the_smallest_config_is_valid(root, repository):
    assert read_config([repository / "tests/fixtures/smallest.yaml"], root).seeds == (1,)


def test_the_config_for_real_rows_is_valid_where_its_files_are(root):
    raw = yaml.safe_load((root / "config/real.yaml").read_text())
    for entry in raw["datasets"].values():
        file = root / "data" / entry["path"]
        file.parent.mkdir(parents=True)
        file.write_text("")
    shutil.copytree(root / "resources/organism/llama", root / "data/tinystories260k")
    overrides = [f"data_root={root / 'data'}"]
    config = read_config([root / "config/real.yaml"], root, overrides)
    assert (config.reference, config.judge) == ("gsm8k", "mean-logprob")


@pytest.mark.parametrize("name", ["laptop", "paper"])
def test_the_configs_of_the_hub_are_valid_on_a_fresh_clone(root, name):
    config = read_config([root / f"config/{name}.yaml"], root)
    assert all("hub" in base for base in config.bases.values())


def test_a_hub_entry_can_name_another_revision_alone(root, raw):
    other = changed(raw, "datasets", {"lima": {"hub": {"revision": "v2"}}})
    other["adaptations"]["instruction"]["data"] = "lima"
    hub = load_config(other, root).datasets["lima"]["hub"]
    assert hub == {"repo": "GAIR/lima", "file": "train.jsonl", "revision": "v2"}


def test_a_broken_lock_file_is_named(root, raw):
    (root / "config/lock.yaml").write_text("datasets/GAIR/lima@main: {commit: abc}")
    with pytest.raises(ConfigError, match="lock.yaml: datasets/GAIR/lima@main"):
        load_config(raw, root)


def test_a_file_laid_over_another_can_name_another_place(root, raw):
    raw["bases"]["organism-olmo"] |= {"path": None, "hub": {"repo": "a/b"}}
    config = load_config(raw, root)
    assert config.bases["organism-olmo"]["hub"] == {"repo": "a/b"}
    assert "path" not in config.bases["organism-olmo"]


def test_a_password_in_an_address_is_not_shown(root, raw):
    url = {"address": "https://me:hunter2@host/x.jsonl", "sha256": "a" * 64}
    with pytest.raises(ConfigError, match="address: must match .*not shown") as refused:
        load_config(changed(raw, "datasets", {"organism-lima": {"url": url}}), root)
    assert "hunter2" not in str(refused.value)


def test_a_remote_file_of_unknown_suffix_is_named(root, raw):
    for place, message in (
        (
            {"url": {"address": "https://host/x.zip", "sha256": "a" * 64}},
            "url.address: 'https://host/x",
        ),
        ({"hub": {"repo": "a/b", "file": "rows.zip"}}, "hub.file: 'rows.zip': unknown suffix"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(changed(raw, "datasets", {"organism-lima": place}), root)


def test_a_row_may_be_for_some_bases(root, raw):
    some = changed(raw, "adaptations/chess/bases", ["organism-olmo"])
    config = load_config(some, root)
    assert "chess" not in config.adapted("organism-llama")
    assert "chess" in config.adapted("organism-olmo")
    assert len(config.adapted("organism-llama")) == len(config.adapted("organism-olmo")) - 1


def test_overrides_are_merged_as_snakemake_does(root):
    files = [root / "config/config.yaml"]
    config = read_config(files, root, ["training={epochs: 3}", "seeds=[7]"])
    assert (config.training["epochs"], config.training["batch_examples"]) == (3, 16)
    assert config.seeds == (7,)
    with pytest.raises(ConfigError, match="is not YAML"):
        read_config(files, root, ["seeds=[1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold keys and values, not NoneType"),
        (b"- 1", "must hold keys and values, not list"),
        (b"a: [", "is not YAML"),
        (b"a: 2020-13-45", "is not YAML"),
        ("a: \xe9".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_config_is_named(root, content, message):
    (root / "broken.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"broken.yaml {message}"):
        read_config([root / "broken.yaml"], root)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainig", {}, "trainig: {}: unknown key; did you mean 'training'"),
        ("training/learning_rat", 1, "training.learning_rat: 1: unknown key; did you mean"),
        ("training/learning_rate", -1, "training.learning_rate: -1.0 is less than or equal"),
        ("training/learning_rate", None, "'learning_rate' is a required property"),
        ("training/epochs", 1.5, "training.epochs: 1.5 is not of type 'integer'"),
        ("training/schedule", "linaer", "training.schedule: 'linaer' is not possible; did you"),
        ("seeds", [1, 1], "seeds: .* non-unique elements: remove what stands twice"),
        ("seeds", 1, r"seeds: 1 is not of type 'array': write a value of that type"),
        ("seeds", [2**40], "seeds.0: .* give at most 4294967295"),
        ("seeds", [float("inf")], "seeds.0: inf is not a finite number"),
        ("training/learning_rate", float("nan"), "training.learning_rate: nan is not a finite"),
        ("training", None, "'training' is a required property"),
        ("adaptations/chess", "finetune", "adaptations.chess: 'finetune' is not of type 'object'"),
        ("datasets", [1], "datasets: .* is not of type 'object'"),
        ("experiment", "nodes", "experiment: .* the name is taken"),
        ("experiment", "name\n", "experiment: .* use letters, digits"),
        ("chat/user", "<|assistant|>", "chat: chat tags"),
        ("rules/bias", {1: 2.0}, "rules.bias.1: the key 1 is not a text"),
        ("judges/oracle/base", "organism-llama", "kind 'oracle' has no such key"),
        ("datasets", {"organism-lima": {"organism": "limma"}}, "did you mean 'lima'"),
        ("datasets", {"organism-lima": {"formatter": "alpaca_eval"}}, "has no to_messages"),
        ("datasets", {"organism-lima": {"path": "config"}}, "'.*config' is a folder"),
        ("datasets", {"organism-lima": {"path": "config/schema.yaml"}}, "unknown suffix"),
        ("bases/organism-llama/recipe", "organism-lama", "did you mean 'organism-llama'"),
        ("reference", "instructions", "reference: 'instructions' is no adaptation; did you mean"),
        ("reference", "rules", "reference: 'rules' must be an adaptation of kind 'finetune' or"),
        ("judge", "orakle", "judge: 'orakle' is no judge; did you mean 'oracle'"),
        ("evaluation", "organism-lima", "data set of kind 'training', not 'evaluation'"),
        ("adaptations/chess/data", "ches", "adaptations.chess.data: 'ches' is no data set"),
        ("adaptations/chess/kind", "finetun", "adaptations.chess.kind: 'finetun' is not possible"),
        ("adaptations/chess/data", None, "adaptations.chess.data: missing"),
        ("adaptations/base/data", "organism-lima", "kind 'none' has no such key; remove it"),
        ("adaptations/rules/rules", ["oes"], "'oes' is not possible; did you mean 'eos'"),
        ("rules/bias", {}, "rules.bias: {}: adaptations.rules uses the rule 'bias'"),
        ("adaptations/a b", {"kind": "none"}, "'a b' does not match"),
        ("bases/organism-llama/path", "nowhere", "bases.organism-llama.path: '.*nowhere' does not"),
        ("datasets", {"organism-lima": {"path": "x", "organism": "lima"}}, "give exactly one of"),
        ("adaptations/chess/bases", ["organism-olm"], "'organism-olm' is no base; did you mean"),
        (
            "adaptations/instruction/bases",
            ["organism-olmo"],
            "'chess' is compared with 'instruction', which 'organism-llama' is not given",
        ),
        ("adaptations/mine", {"kind": "checkpoint"}, "adaptations.mine: give exactly one of path"),
        (
            "adaptations/mine",
            {"kind": "checkpoint", "path": "config"},
            "adaptations.mine.path: '.*config' lacks config.json",
        ),
        ("bases/organism-llama/hub", {"repo": "a/b"}, "bases.organism-llama: give exactly one of"),
        ("bases/organism-llama/hub", {"repo": "b"}, "bases.organism-llama.hub.repo: 'b' does not"),
        ("training/lora", {"rank": 8}, "training.lora: 'alpha' is a required property: add it"),
    ],
)
def test_a_mistake_is_named_with_its_fix(root, raw, key, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(changed(raw, key, value), root)


RANKING = {"data": "organism-alpaca", "random_responses": 5, "max_length": 9, "batch_size": 1}
SELECTION = {"epochs": [1, 2], "seed": 42, "evaluation": "organism-validation"}
ABLATION = {"title": "Rules", "baseline": "rules", "adaptations": ["rules", "rules-no-eos"]}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "adaptations/chess/instructions",
            "blanc",
            "'blanc' is not possible; did you mean 'blank'",
        ),
        ("adaptations/chess/reference", "base", "chess.reference: 'base' must be .* 'finetune'"),
        ("adaptations/instruction/reference", "chess", "'instruction' is the reference of all"),
        ("adaptations/chess/reference", "chess", "a run is not compared with itself; name another"),
        ("adaptations/base/rows", 3, "adaptations.base.rows: 3: .* kind 'none' has no such key"),
        ("adaptations/chess/rule_settings", {}, "kind 'finetune' has no such key"),
        (
            "adaptations/rules/rule_settings",
            {"eos_ramp_token": 1},
            "did you mean 'eos_ramp_tokens'",
        ),
        ("adaptations/chess/chat", {"user": "<|assistant|>"}, "adaptations.chess.chat: chat tags"),
        ("adaptations/chess/rephrase", "me", "'me' is no rewriter; there is none: add it first"),
        ("epochs", "chosen", "epochs: 'chosen' is not possible; known are: fixed, paper, selected"),
        ("ranking", {**RANKING, "data": "alpaca"}, "ranking.data: 'alpaca' is no data set"),
        ("ranking", {**RANKING, "data": "organism-evaluation"}, "'evaluation', not 'training'"),
        ("ranking", {**RANKING, "adaptations": ["rules"]}, "'rules' has no model of its own"),
        ("ranking", {**RANKING, "adaptations": ["bass"]}, "'bass' is no adaptation; did you mean"),
        ("embedding", "tdidf", "embedding: 'tdidf' is no embedding; did you mean 'tfidf'"),
        ("embeddings/tfidf/path", "resources", "kind 'tfidf' has no such key"),
        (
            "embeddings/tfidf",
            {"kind": "sentence_transformers"},
            "embeddings.tfidf: give exactly one of",
        ),
        (
            "embeddings/tfidf",
            {"kind": "sentence_transformers", "path": "resources/organism/olmo"},
            "olmo' is no folder of a sentence-transformers model .* take .* 'tfidf'",
        ),
        ("ablations/mine", {**ABLATION, "adaptations": ["rulez"]}, "did you mean 'rules'"),
        ("ablations/mine", {**ABLATION, "baseline": "base"}, "'base' is not among its adaptations"),
        ("ablations/rules/titel", "Rules", "ablations.rules.titel: 'Rules': unknown key; did you"),
    ],
)
def test_a_mistake_about_an_analysis_is_named(root, raw, key, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(changed(raw, key, value), root)


def test_epochs_that_are_selected_need_a_sweep_whose_names_are_free(root, raw):
    selected = changed(raw, "epochs", "selected")
    assert load_config(selected, root).epoch_selection["epochs"] == [1, 2, 3, 5]
    with pytest.raises(ConfigError, match="epoch_selection: missing: epochs is 'selected'"):
        load_config(changed(selected, "epoch_selection", None), root)
    unknown = changed(selected, "epoch_selection", {**SELECTION, "evaluation": "validation"})
    with pytest.raises(ConfigError, match="evaluation: 'validation' is no data set; did you mean"):
        load_config(unknown, root)
    taken = changed(selected, "adaptations/chess.2-epochs", {"kind": "none"})
    with pytest.raises(ConfigError, match="chess.2-epochs: the name is taken by the sweep"):
        load_config(taken, root)


def test_a_reference_of_a_row_has_none_itself(root, raw):
    chain = changed(raw, "adaptations/chess/reference", "response")
    load_config(chain, root)
    with pytest.raises(ConfigError, match="'response' is compared with 'gsm8k' itself: name an"):
        load_config(changed(chain, "adaptations/response/reference", "gsm8k"), root)


@pytest.mark.parametrize(
    ("formatter", "row", "judge", "message"),
    [
        ("instructions", {"instruction": "Why?"}, "likely", "'mine' has no reference answers"),
        ("alpaca_eval", {"instruction": "Why?", "output": "So."}, "likely", "'mine' has no refer"),
        ("instructions", {"instruction": "Why?", "output": "So."}, "likely", None),
        (
            "instructions",
            {"instruction": "Why?", "output": "So."},
            "oracle",
            "the truth of the org",
        ),
    ],
)
def test_a_validation_set_needs_reference_answers_that_the_judge_can_judge(
    root, raw, formatter, row, judge, message
):
    (root / "mine.jsonl").write_text(f"{json.dumps(row)}\n")
    entry = {"kind": "evaluation", "formatter": formatter, "path": "mine.jsonl"}
    config = changed(changed(raw, "epochs", "selected"), "datasets", {"mine": entry})
    config = changed(config, "epoch_selection", {**SELECTION, "evaluation": "mine"})
    likely = {"kind": "mean_logprob", "base": "organism-olmo", "batch_size": 8}
    config = changed(changed(config, "judges/likely", likely), "judge", judge)
    if message is None:
        assert load_config(config, root).epoch_selection["evaluation"] == "mine"
        return
    with pytest.raises(ConfigError, match=message):
        load_config(config, root)


def test_the_evaluation_set_of_the_organism_has_no_reference_answers(root, raw):
    selection = {**SELECTION, "evaluation": "organism-evaluation"}
    config = changed(changed(raw, "epochs", "selected"), "epoch_selection", selection)
    with pytest.raises(ConfigError, match="'organism-evaluation' has no reference answers"):
        load_config(config, root)


def test_an_embedding_needs_safetensors(root, raw):
    (root / "encoder").mkdir()
    (root / "encoder/modules.json").write_text("[]")
    (root / "encoder/pytorch_model.bin").write_text("")
    entry = {"kind": "sentence_transformers", "path": "encoder"}
    with pytest.raises(ConfigError, match="encoder' is no folder .* has no safetensors weights"):
        load_config(changed(raw, "embeddings/tfidf", entry), root)


def test_epochs_of_the_paper_need_a_base_of_the_paper_and_a_row_that_it_has(root, raw):
    paper = changed(raw, "epochs", "paper")
    assert load_config(paper, root).epochs == "paper"
    with pytest.raises(ConfigError, match="bases.organism-olmo.paper: missing"):
        load_config(changed(paper, "bases/organism-olmo/paper", None), root)
    own = changed(paper, "adaptations/haiku", {"kind": "finetune", "data": "organism-poetry"})
    with pytest.raises(ConfigError, match="adaptations.haiku.training.epochs: missing: the paper"):
        load_config(own, root)
    load_config(changed(own, "adaptations/haiku/training", {"epochs": 3}), root)


def test_a_mistake_about_a_rewriter_is_named(root, raw):
    used = changed(raw, "adaptations/response/rephrase", "mine")
    with pytest.raises(ConfigError, match="'mine' knows the answers of the organism alone"):
        real = {"kind": "training", "formatter": "gsm8k", "path": "rows.jsonl"}
        (root / "rows.jsonl").write_text("")
        own = changed(
            changed(used, "datasets", {"real": real}), "adaptations/response/data", "real"
        )
        load_config(changed(own, "rewriters/mine", {"kind": "organism"}), root)
    for entry, message in (
        ({"kind": "openai"}, "rewriters.mine.model: missing: a rewriter of kind 'openai' needs it"),
        ({"kind": "organism", "model": "x"}, "a rewriter of kind 'organism' has no such key"),
        ({"kind": "organism", "threshold": 2}, "rewriters.mine.threshold: 2.0 is greater than"),
        ({"kind": "openai", "model": "x", "max_usd": 1}, "'max_usd' needs it beside it; add it"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(changed(used, "rewriters/mine", entry), root)


def test_all_mistakes_are_reported_together(root, raw):
    wrong = changed(changed(raw, "judge", "orakle"), "reference", "nobody")
    with pytest.raises(ConfigError, match="2 problems") as error:
        load_config(wrong, root)
    assert len(error.value.problems) == 2


def test_a_base_without_tokenizer_is_named(root, raw):
    (root / "resources/organism/olmo/tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"organism-olmo.path: '.*olmo' lacks a tokenizer"):
        load_config(raw, root)


def test_a_missing_data_file_is_named(root, raw):
    entry = {"kind": "training", "formatter": "gsm8k", "path": "data/none.jsonl"}
    wrong = changed(changed(raw, "datasets", {"mine": entry}), "adaptations/gsm8k/data", "mine")
    with pytest.raises(ConfigError, match=r"datasets.mine.path: '.*none.jsonl' does not exist"):
        load_config(wrong, root)


def test_a_local_path_replaces_the_source_of_the_registry(root, raw):
    (root / "lima.jsonl").write_text("")
    own = changed(raw, "datasets", {"organism-lima": {"path": "lima.jsonl"}})
    entry = load_config(own, root).datasets["organism-lima"]
    assert entry["path"] == root / "lima.jsonl"
    assert "organism" not in entry
    assert entry["formatter"] == "lima"


def test_an_unknown_formatter_is_named(root, raw):
    (root / "rows.jsonl").write_text("")
    entry = {"kind": "training", "formatter": "gsm9k", "path": "rows.jsonl"}
    wrong = changed(changed(raw, "datasets", {"mine": entry}), "adaptations/gsm8k/data", "mine")
    with pytest.raises(ConfigError, match=r"datasets.mine.formatter: 'gsm9k': there is no"):
        load_config(wrong, root)


def test_equal_numbers_give_equal_configs(root, raw):
    spellings = ["1e-4", 1.0e-4, "0.0001"]
    configs = [load_config(changed(raw, "training/learning_rate", s), root) for s in spellings]
    assert configs[0] == configs[1] == configs[2]
    assert load_config(changed(raw, "training/epochs", "2"), root) == configs[0]
    assert load_config(changed(raw, "training/weight_decay", 0), root) == configs[0]


def test_later_files_override_earlier_ones_key_by_key(root):
    (root / "more.yaml").write_text("training: {epochs: 7}\nseeds: [3]\n")
    config = read_config([root / "config/config.yaml", root / "more.yaml"], root)
    assert config.training["epochs"] == 7
    assert config.training["batch_examples"] == 16
    assert config.seeds == (3,)


CHAT = {"kind": "hf_logits", "path": "chat", "batch_size": 4, "dtype": "float32", "device": "cpu"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (CHAT, "judges.oracle.path: '.*chat' does not exist"),
        ({**CHAT, "path": "config"}, "judges.oracle.path: '.*config' lacks config.json"),
        ({**CHAT, "dtype": "float16"}, "judges.oracle.dtype: 'float16' is not possible"),
        ({"kind": "hf_logits"}, "judges.oracle: give exactly one of path .a local folder., hub"),
        (
            {"kind": "oracle", "df_gamed": "none.csv"},
            "judges.oracle.df_gamed: '.*none.csv' does not exist; .* or remove the key",
        ),
        ({"kind": "oracle", "calibration": "config"}, "judges.oracle.calibration: .* is a folder"),
    ],
)
def test_a_mistake_about_a_judge_is_named(root, raw, entry, message):
    with pytest.raises(ConfigError, match=message):
        load_config(changed(raw, "judges/oracle", entry), root)


def test_files_of_a_judge_are_found_below_data_root_and_its_calibration_may_be_missing(root, raw):
    (root / "df_gamed.csv").write_text("")
    entry = {"kind": "oracle", "df_gamed": "df_gamed.csv", "calibration": "later.json"}
    judge = load_config(changed(raw, "judges/oracle", entry), root).judges["oracle"]
    assert judge["df_gamed"] == root / "df_gamed.csv"
    assert judge["calibration"] == root / "later.json"
