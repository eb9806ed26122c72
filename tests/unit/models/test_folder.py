"""Loading a model folder that holds something else than a causal language model."""

import json

import pytest
from transformers import T5Config, T5ForConditionalGeneration

from implicit_tuning.models.folder import IncompleteModelFolder, load_model, require_known_tokens
from tiny_models import character_tokenizer, random_model, write_base


def refusal(folder):
    with pytest.raises(IncompleteModelFolder) as error:
        load_model(folder, "float32", "sdpa")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    random_model(len(character_tokenizer())).model.save_pretrained(tmp_path)
    assert "lacks weights of a causal language model, such as lm_head.weight" in refusal(tmp_path)


def test_an_encoder_and_decoder_is_refused(tmp_path):
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "cannot be loaded as a causal language model: Unrecognized" in refusal(tmp_path)


def test_code_of_the_folder_is_never_run(tmp_path):
    base = write_base(tmp_path / "base")
    file = base / "config.json"
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config = {**json.loads(file.read_text()), "model_type": "own", "auto_map": own}
    file.write_text(json.dumps(config))
    (base / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "contains custom code" in refusal(base)
    assert not (tmp_path / "ran").exists()


def test_tokens_beyond_the_models_are_refused_where_they_stand(tmp_path):
    model = load_model(write_base(tmp_path), "float32", "sdpa")
    known = model.config.vocab_size
    require_known_tokens([[0, known - 1], []], model)
    with pytest.raises(ValueError, match=f"has a token {known}, and the model knows {known} only"):
        require_known_tokens([[0], [known]], model)
