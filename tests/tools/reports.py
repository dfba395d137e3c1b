"""Diffs to report on: of several bases, a chain, branches, a lossy one, a damaged one, side files, hostile names."""

from __future__ import annotations

import math
from pathlib import Path

import diffpack
from diffpack.diff.stats import CodingStats, DiffStats, TensorStats
from diffpack.report.contents.histograms import DiffHistograms, Histogram
from diffpack.report.contents.overlap import TaskOverlap
from diffpack.report.stats import Stats, stats
from tests.tools.models import Arrays, model, tune, write_safetensors

HOSTILE = "<script>alert(1)</script>"
QUOTED = "a\" onmouseover='alert(2)' b=\"&amp;"
TURNED = "task\u202egpj.exe"
"""Its end reads backwards where it is shown as it is."""


def named_layers(base: Arrays) -> Arrays:
    """The same model with tensors whose names are no friends."""
    return {**base, f"encoder.2.{HOSTILE}.weight": base["encoder.0.weight"], QUOTED: base["encoder.0.bias"]}


def make_diffs(folder: Path, count: int = 6) -> Path:
    """Write `count` tasks of a base, three in a chain, two branches, a lossy one, one of another base, one damaged."""
    folder.mkdir()
    base = named_layers(model())
    for at in range(count):
        diffpack.extract(base, tune(base, 0.01 * (at + 1), seed=at), folder / f"task{at:02d}.dpk").close()
    link = base
    for version in range(3):
        following = tune(link, seed=100 + version)
        diffpack.extract(link, following, folder / f"chain{version}.dpk").close()
        link = following
    root = tune(base, seed=200)
    diffpack.extract(base, root, folder / "root.dpk").close()
    for branch in range(2):
        diffpack.extract(root, tune(root, seed=300 + branch), folder / f"branch{branch}.dpk").close()
    diffpack.extract(base, tune(base, 0.5, seed=400), folder / "lossy.dpk", values="int8").close()
    tuned = folder.parent / "tuned"
    tuned.mkdir()
    write_safetensors(tuned / "model.safetensors", tune(base, seed=500), {"format": "pt"})
    (tuned / "config.json").write_text('{"model_type": "none"}')
    write_safetensors(folder.parent / "base.safetensors", base, {"format": "pt"})
    diffpack.extract(folder.parent / "base.safetensors", tuned, folder / "with_files.dpk", base_name="org/base").close()
    other = model(seed=9)
    diffpack.extract(other, tune(other, seed=10), folder / "other.dpk").close()
    for at, name in enumerate((HOSTILE.replace("/", "\\"), QUOTED, TURNED)):
        diffpack.extract(base, tune(base, seed=600 + at), folder / f"{name}.dpk").close()
    damaged = bytearray((folder / "task00.dpk").read_bytes())
    damaged[-40] ^= 1
    (folder / "damaged.dpk").write_bytes(damaged)
    return folder


def counted(folder: Path, count: int = 6, *, tensors: bool = True) -> Stats:
    """What is counted of them."""
    return stats(make_diffs(folder, count), tensors=tensors, keep_going=True)


def made_up_overlaps(found: Stats) -> list[TaskOverlap]:
    """An overlap of all diffs of each base: i + j + 1 entries are shared."""
    made = []
    for family in found.families:
        items = [member.diff for member in family.members]
        both = tuple(
            tuple(item.changed if a == b else min(a + b + 1, item.changed) for b in range(len(items)))
            for a, item in enumerate(items)
        )
        missing = (("elsewhere.dpk", f"not read {HOSTILE}"),)
        made.append(TaskOverlap(family.base_fingerprint, tuple(item.name for item in items), both, missing))
    return made


def made_up_histograms(found: Stats) -> list[DiffHistograms]:
    """Three bins of steps, two of amounts for each diff; of the last one only a reason."""
    known = [
        DiffHistograms(
            item.name,
            Histogram((1.0, 2.0, 4.0, 8.0), (at + 1, 10 * at + 7, 3)),
            Histogram((2.0**-12, 2.0**-11, 2.0**-10), (5, at)),
        )
        for at, item in enumerate(found.diffs[:-1])
    ]
    return [*known, DiffHistograms(found.diffs[-1].name, None, None, "the base is needed")]


def like_minilm(count: int) -> list[DiffStats]:
    """Made-up counts of tasks that change 0.5 % of a model with the names and shapes of MiniLM: 101 tensors."""
    shapes = {"embeddings.word_embeddings.weight": (30522, 384), "embeddings.position_embeddings.weight": (512, 384)}
    for layer in range(6):
        for module, inputs, outputs in _LAYER:
            shapes[f"encoder.layer.{layer}.{module}.weight"] = (outputs, inputs) if inputs else (outputs,)
            shapes[f"encoder.layer.{layer}.{module}.bias"] = (outputs,)
    shapes |= {"pooler.dense.weight": (384, 384), "pooler.dense.bias": (384,), "embeddings.LayerNorm.bias": (384,)}
    return [_made_up(at, shapes) for at in range(count)]


_LAYER = [
    ("attention.self.query", 384, 384),
    ("attention.self.key", 384, 384),
    ("attention.self.value", 384, 384),
    ("attention.output.dense", 384, 384),
    ("attention.output.LayerNorm", 0, 384),
    ("intermediate.dense", 384, 1536),
    ("output.dense", 1536, 384),
    ("output.LayerNorm", 0, 384),
]


def _made_up(at: int, shapes: dict[str, tuple[int, ...]]) -> DiffStats:
    tensors = []
    for number, (name, shape) in enumerate(shapes.items()):
        entries = math.prod(shape)
        changed = 1 + entries * (40 + (at * 7 + number * 3) % 20) // 10_000
        tensors.append(
            TensorStats(name, "changed", "F32", shape, "gaps", "exact", changed, entries, 4 * changed, 4 * entries, 0.0)
        )
    entries, value_bytes = sum(item.entries for item in tensors), sum(item.nbytes for item in tensors)
    changed = sum(item.changed for item in tensors)
    return DiffStats(
        name=f"/models/minilm/task_{at:04d}.dpk", exact=True, nbytes=value_bytes + 4388, manifest_bytes=4300,
        factor_bytes=0, position_bytes=0, value_bytes=value_bytes, layout_bytes=0, side_file_bytes=0, frame_bytes=88,
        base_fingerprint="6c" * 32, base_name="org/MiniLM", base_bytes=4 * entries, base_entries=entries,
        result_fingerprint=f"{at:064x}", result_bytes=4 * entries, result_entries=entries, records=len(tensors),
        changed=changed, counted=True, removed=0, aliases=0, error=0.0,
        codings=(CodingStats("gaps", "exact", 0, len(tensors), value_bytes),), tensors=tuple(tensors),
        recipe={"select": "all", "values": "exact"},
    )  # fmt: skip
