"""Sentence embeddings by a BERT encoder in numpy: what a diff does to a model's answers, without torch.

The published forward pass (Devlin et al. 2019; mean pooling, Reimers and Gurevych 2019), one text at a time and so
without padding, and the tokenizer of uncased BERT.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.support.blas import single_threaded_products

Floats = npt.NDArray[np.float32]
UNKNOWN, FIRST, LAST = "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 100  # letters; a longer one is unknown, as in BERT's own tokenizer
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


@dataclass(frozen=True)
class WordPiece:
    """The tokenizer of uncased BERT: a vocabulary, words cut greedily into its longest pieces."""

    numbers: Mapping[str, int]

    @classmethod
    def of(cls, model: Path) -> WordPiece:
        """The one in a model's folder, by its vocab.txt."""
        lines = (model / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return cls({piece: at for at, piece in enumerate(lines)})

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's pieces between those of [CLS] and [SEP]."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self.numbers[piece] for piece in (FIRST, *pieces, LAST)]

    def _pieces(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word) <= _LONGEST_WORD:
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self.numbers), None)
            if end is None:
                return [UNKNOWN]
            found.append(mark + word[start:end])
            start = end
        return found or [UNKNOWN]


def words(text: str) -> list[str]:
    """Lower case without accents; marks and ideographs are words of their own."""
    spaced = []
    for letter in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(letter)
        if letter.isspace():
            spaced.append(" ")
        elif kind[0] == "C" or kind == "Mn":
            continue
        elif _is_mark(letter, kind) or any(first <= ord(letter) <= last for first, last in _IDEOGRAPHS):
            spaced.append(f" {letter} ")
        else:
            spaced.append(letter)
    return "".join(spaced).split()


def _is_mark(letter: str, kind: str) -> bool:
    return kind[0] == "P" or (letter.isascii() and not letter.isalnum())  # of ASCII, $ + < = > ^ ` | ~ too


@dataclass(frozen=True)
class Encoder:
    """A BERT model: its tensors by transformers' names (float32), its tokenizer and its configuration."""

    tensors: Mapping[str, npt.NDArray[Any]]
    tokenizer: WordPiece
    heads: int
    layers: int
    epsilon: float

    @classmethod
    def of(cls, model: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> Encoder:
        """Of a model's folder (config.json, vocab.txt) with these weights."""
        config = json.loads((model / "config.json").read_text())
        if (config["model_type"], config["hidden_act"]) != ("bert", "gelu"):
            raise ValueError(f"{model} is no BERT model with gelu")
        sizes = config["num_attention_heads"], config["num_hidden_layers"], config["layer_norm_eps"]
        return cls(tensors, WordPiece.of(model), *sizes)

    def embed(self, texts: Sequence[str]) -> Floats:
        """Give each text the mean of its last layer's states: (texts, width). A text has at most 512 pieces."""
        with single_threaded_products():  # short texts: threads of BLAS would wait for one another
            return np.stack([self._states(self.tokenizer.ids(text)).mean(axis=0) for text in texts])

    def _states(self, ids: Sequence[int]) -> Floats:
        tables = [self.tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
        states = self._normed("embeddings.LayerNorm", tables[0][ids] + tables[1][: len(ids)] + tables[2][0])
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            mixed = self._linear(f"{at}.attention.output.dense", self._attention(f"{at}.attention.self", states))
            states = self._normed(f"{at}.attention.output.LayerNorm", states + mixed)
            inner = gelu(self._linear(f"{at}.intermediate.dense", states))
            states = self._normed(f"{at}.output.LayerNorm", states + self._linear(f"{at}.output.dense", inner))
        return states

    def _attention(self, at: str, states: Floats) -> Floats:
        sides = [self._linear(f"{at}.{side}", states) for side in ("query", "key", "value")]
        query, key, value = (side.reshape(len(states), self.heads, -1).swapaxes(0, 1) for side in sides)
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed: Floats = (shares @ value).swapaxes(0, 1).reshape(states.shape)
        return mixed

    def _linear(self, at: str, states: Floats) -> Floats:
        result: Floats = states @ self.tensors[f"{at}.weight"].T + self.tensors[f"{at}.bias"]
        return result

    def _normed(self, at: str, states: Floats) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        result: Floats = centred / deviation * self.tensors[f"{at}.weight"] + self.tensors[f"{at}.bias"]
        return result


def gelu(x: Floats) -> Floats:
    """Give x times the normal distribution's share below x, to 2e-7 of it (Abramowitz and Stegun 1964, 7.1.26)."""
    size = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    above = series * np.exp(-size * size) / 2
    result: Floats = x * np.where(x < 0, above, 1 - above)
    return result


def cosines(one: Floats, other: Floats) -> npt.NDArray[np.float64]:
    """The cosine of each row of one array with that row of another."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    result: npt.NDArray[np.float64] = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return result
