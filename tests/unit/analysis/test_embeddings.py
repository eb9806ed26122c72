"""Embedders: unit vectors, what they take into account, and folders that are refused."""

import builtins
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from implicit_tuning.analysis.embeddings import make_embedder

CORPUS = ["Name a river.", "The river is the Drotrel.", "def f(x):\n    return x", "The end."]
SENTENCE = {"kind": "sentence_transformers", "batch_size": 2}


def dense(vectors):
    return vectors.toarray() if sparse.issparse(vectors) else vectors


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A tiny BERT with random weights and mean pooling, as sentence-transformers saves it."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("embedding")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "name", "a", ".", "end"]
    vocabulary = {word: number for number, word in enumerate(words)}
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(words), intermediate_size=16, max_position_embeddings=32, **shape
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=16)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(
        str(folder / "saved"), create_model_card=False
    )
    return folder / "saved"


@pytest.fixture(params=["tfidf", "sentence_transformers"])
def embedder(request):
    if request.param == "tfidf":
        return make_embedder({"kind": "tfidf"}, None, CORPUS)
    return make_embedder(SENTENCE, request.getfixturevalue("model_folder"), CORPUS)


def test_vectors_are_of_length_one_and_zero_for_no_text(embedder):
    vectors = dense(embedder.embed([*CORPUS, "", " \n"]))
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths == pytest.approx([1, 1, 1, 1, 0, 0], abs=1e-6)
    assert embedder.description


def test_a_text_is_nearest_to_itself(embedder):
    vectors = dense(embedder.embed(CORPUS))
    assert (vectors @ vectors.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_equal_texts_give_equal_bytes(embedder):
    first, second = (dense(embedder.embed(CORPUS)).tobytes() for _ in range(2))
    assert first == second


def test_tfidf_sees_punctuation_and_line_breaks():
    embedder = make_embedder({"kind": "tfidf"}, None, ["a, b", "a\nb", "a b", "a: b"])
    a_b, comma, broken = dense(embedder.embed(["a b", "a, b", "a\nb"]))
    assert a_b @ comma < 0.999 and a_b @ broken < 0.999 and comma @ broken < a_b @ comma


def test_tfidf_weighs_rare_words_more():
    embedder = make_embedder({"kind": "tfidf"}, None, ["the cat", "the dog", "the hen"])
    text, rare, common = dense(embedder.embed(["the cat", "cat", "the"]))
    assert text @ rare > text @ common


def test_tfidf_needs_no_torch():
    code = (
        "import sys\nfrom implicit_tuning.analysis.similarity import make_embedder\n"
        "make_embedder({'kind': 'tfidf'}, None, ['a', 'b']).embed(['a'])\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prefix_stands_before_each_text(model_folder):
    plain = make_embedder(SENTENCE, model_folder, [])
    prefixed = make_embedder({**SENTENCE, "prefix": "the river "}, model_folder, [])
    assert prefixed.embed(["end."]) == pytest.approx(plain.embed(["the river end."]), abs=1e-6)
    assert prefixed.embed(["end."]) != pytest.approx(plain.embed(["end."]), abs=1e-3)


def test_pooling_is_the_mean_over_tokens(model_folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(model_folder) for kind in (AutoTokenizer, AutoModel))
    with torch.inference_mode():
        states = model(**tokenizer("the river.", return_tensors="pt")).last_hidden_state[0]
    mean = states.mean(dim=0).numpy()
    vector = make_embedder(SENTENCE, model_folder, []).embed(["the river.", "a longer river ."])[0]
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_description_of_a_model_names_no_path(model_folder):
    embedder = make_embedder(SENTENCE, model_folder, [])
    assert embedder.description == (
        "sentence-transformers, 16 dimensions, of each text the first 16 tokens"
    )


def test_half_precision_weights_are_computed_in_float32(model_folder, tmp_path):
    from transformers import AutoModel

    folder = shutil.copytree(model_folder, tmp_path / "half")
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    assert make_embedder(SENTENCE, folder, []).embed(["the end."]).dtype == np.float32


@pytest.mark.parametrize(
    ("gone", "said"),
    [("modules.json", r"modules\.json"), ("model.safetensors", r"\*\*/\*\.safetensors")],
)
def test_an_incomplete_folder_is_refused(model_folder, tmp_path, gone, said):
    folder = shutil.copytree(model_folder, tmp_path / "cut")
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=rf"cut is no folder of .* has no {said}\. Point 'path'"):
        make_embedder(SENTENCE, folder, [])


def test_code_of_a_folder_is_not_run(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "foreign")
    modules = (folder / "modules.json").read_text()
    before, after = modules.rsplit('"type": "', 1)
    foreign = f'{before}"type": "mine.Pooling"{after[after.index(chr(34)) + 1 :]}'
    (folder / "modules.json").write_text(foreign)
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        make_embedder(SENTENCE, folder, [])


def test_a_missing_folder_and_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="need a 'path' to a local model folder"):
        make_embedder(SENTENCE, None, [])
    with pytest.raises(ValueError, match="no kind 'word2vec': tfidf or sentence_transformers"):
        make_embedder({"kind": "word2vec"}, None, [])


def test_the_missing_library_is_named_with_its_fix(model_folder, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "sentence_transformers":
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[embeddings\]'"):
        make_embedder(SENTENCE, model_folder, [])
