"""A LoRA adapter that PEFT makes, as a diff: its bytes beside the adapter's own, and how far the model's answers move.

    python -m benchmarks.adapter BASE [results.csv]

BASE is the folder of a transformers encoder (make pair installs all-MiniLM-L6-v2). The adapter is of rank 8, on all
linear layers of attention, and is trained for some steps to give sentences embeddings that were drawn, so its numbers
are those of training. Embeddings are means over tokens; what they are off by is relative, in the L2 norm, and is
compared with those of the model that PEFT itself runs with the adapter.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import diffpack

RANK = 8
STEPS = 30
_LEARNING_RATE = 5e-3
_TARGETS = ["query", "key", "value", "attention.output.dense"]
_TEXTS, _WORDS, _VOCABULARY = 8, 16, 20000  # token ids drawn at random: no text, no tokenizer
MOST_AS_STORED, MOST_LOWRANK, MOST_MOVED = 1.02, 0.6, 1e-3
"""The bounds this holds: bytes of either diff over the adapter's, and how far embeddings move by the smaller one."""

Array = npt.NDArray[np.float32]


def make_adapter(base: Path, folder: Path, rank: int = RANK, steps: int = STEPS) -> Path:
    """Let PEFT train an adapter of a base and save it."""
    import peft
    import torch

    torch.manual_seed(0)
    model = load(base)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_TARGETS, task_type="FEATURE_EXTRACTION")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what transformers renames
        wrapped: Any = peft.get_peft_model(model, config)
    ids = token_ids()
    wanted = torch.randn(len(ids), model.config.hidden_size)
    optimiser = torch.optim.Adam([item for item in wrapped.parameters() if item.requires_grad], lr=_LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(_pooled(wrapped, ids), wanted)
        loss.backward()
        optimiser.step()
    wrapped.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    """A model without its pooling head."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModel.from_pretrained(folder).eval()


def token_ids() -> Any:
    """Sentences of drawn tokens."""
    import torch

    return torch.randint(1000, _VOCABULARY, (_TEXTS, _WORDS), generator=torch.Generator().manual_seed(1))


def _pooled(model: Any, ids: Any) -> Any:
    return model(input_ids=ids).last_hidden_state.mean(dim=1)


def embeddings(model: Any) -> Array:
    """What a model makes of the sentences."""
    import torch

    with torch.no_grad():
        found: Array = _pooled(model, token_ids()).numpy()
    return found


def adapted(base: Path, adapter: Path) -> Any:
    """The model as PEFT runs it with an adapter."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(load(base), adapter).eval()


def apart(found: Array, expected: Array) -> float:
    """How far embeddings are from others, relative to those, in the L2 norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def rows(base: Path, adapter: Path, ways: Sequence[str]) -> list[dict[str, str]]:
    """One line for the adapter, one for the base, and one for each way to store the adapter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nbytes = (adapter / "adapter_model.safetensors").stat().st_size
        expected = embeddings(adapted(base, adapter))
        found = [_row("the adapter's safetensors file", nbytes, nbytes, 0.0)]
        found.append(_row("no adapter: the base", 0, nbytes, apart(embeddings(load(base)), expected)))
        for values in ways:
            done = diffpack.convert(adapter, folder / f"{values}.dpk", base=base, options={"values": values})
            diffpack.apply(base, folder / f"{values}.dpk", folder / values)
            moved = apart(embeddings(load(folder / values)), expected)
            found.append(_row(f".dpk, values={values}", done.nbytes, nbytes, moved))
    return found


def _row(what: str, nbytes: int, adapter: int, moved: float) -> dict[str, str]:
    return {"what": what, "bytes": str(nbytes), "of adapter": f"{nbytes / adapter:.3f}", "moved": f"{moved:.1e}"}


def misses(found: list[dict[str, str]]) -> list[str]:
    """The bounds that do not hold."""
    by_name = {row["what"]: row for row in found}
    stored, lowrank = (by_name[f".dpk, values={values}"] for values in ("factors", "lowrank"))
    held = (
        ("bytes exactly as stored", float(stored["of adapter"]), MOST_AS_STORED),
        ("bytes as whole numbers", float(lowrank["of adapter"]), MOST_LOWRANK),
        ("embeddings moved by whole numbers", float(lowrank["moved"]), MOST_MOVED),
    )
    return [f"{what}: {value} is over {most}" for what, value, most in held if value > most]


def main() -> int:
    """Print the table, write it where asked, and tell whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("results", type=Path, nargs="?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = rows(given.base, make_adapter(given.base, Path(name)), ("factors", "lowrank", "merged"))
    for row in found:
        print(
            f"{row['what']:34} {int(row['bytes']):>12,} bytes  x {row['of adapter']}  embeddings off by {row['moved']}"
        )
    if given.results is not None:
        with given.results.open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    wrong = misses(found)
    print("\n".join(wrong) or "all bounds hold")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
