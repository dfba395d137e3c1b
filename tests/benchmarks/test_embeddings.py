"""The numpy encoder of the demo says what transformers says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.demo import TEXTS
from benchmarks.embeddings import Encoder, WordPiece, cosines, gelu
from benchmarks.pairs import read

HARD = [
    "",
    "Ünïcödé naïve Ångström İstanbul ﬁne",
    "東京タワー is in 東京",
    "$5+$3=8 <a^b> `x|y~z` don't stop—now…",
    "x" * 101,
    "tab\tline\nno-break\u00a0zero\u200bwidth\x00nul",
    "🙂 emoji 👩‍💻",
]


def texts():
    return TEXTS.read_text(encoding="utf-8").splitlines()


def test_the_texts_are_two_hundred_different_ones():
    assert len(set(texts())) == len(texts()) == 200


def test_gelu_is_that_of_the_error_function():
    torch = pytest.importorskip("torch")
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), torch.nn.functional.gelu(torch.tensor(x)).numpy(), atol=1e-6)


def test_cosines_are_row_by_row():
    one, other = np.array([[1, 0], [2, 2]], np.float32), np.array([[0, 3], [1, 1]], np.float32)
    np.testing.assert_allclose(cosines(one, other), [0, 1])


@pytest.mark.real
def test_the_tokenizer_is_that_of_transformers(real_pair):
    transformers = pytest.importorskip("transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(real_pair[0]), WordPiece.of(real_pair[0])
    for text in texts() + HARD:
        assert ours.ids(text) == theirs(text)["input_ids"], text


@pytest.mark.real
def test_embeddings_are_those_of_transformers(real_pair):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    base = real_pair[0]
    some = [*texts()[::20], *HARD]
    model = transformers.AutoModel.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in some]
    theirs = np.stack([own.mean(dim=0).numpy() for own in states])
    np.testing.assert_allclose(Encoder.of(base, read(base / "model.safetensors")).embed(some), theirs, atol=1e-5)
