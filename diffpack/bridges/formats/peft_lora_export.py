"""Diffs as LoRA adapters: the factors a diff has, those that training made, or those that a change is the product of.

Of a record with factors these are written, and what else changes its tensor is left out. Of a diff without any, a
matrix's change W' - W is factorised; it is exact up to rounding if what the factors miss is no more than the rounding
of W' itself. The scale is 1 (lora_alpha = r). Biases are saved as they are, and new modules (a head), or those that are
no matrix (a norm), are `modules_to_save`. The layout is that of PEFT 0.21.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterable

from diffpack.algebra.checks import check_base
from diffpack.bridges.bridge import Export
from diffpack.bridges.exporting import note_left_out
from diffpack.bridges.formats.peft_adapter import write_adapter
from diffpack.bridges.formats.peft_base import is_embedding
from diffpack.bridges.formats.peft_keys import CALLED, adapted, plain_keys
from diffpack.bridges.formats.peft_paired import Paired
from diffpack.bridges.formats.peft_pairs import fits_pair
from diffpack.bridges.formats.peft_parts import Missed, Parts
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError
from diffpack.result.result import Result
from diffpack.support.names import listed, printable

_WEIGHT = ".weight"
_RANK, _TOLERANCE = 64, 0.01
LORA_OPTIONS = {
    "rank": f"the largest rank of a layer (default {_RANK})",
    **CALLED,
    "tolerance": f"the largest part of a layer's change that its factors may miss (default {_TOLERANCE})",
    "others": "what else changes, biases, norms, new modules: keep (default), whole, or leave, out",
}
"""The options of this direction."""
_BUILDER = "builder"
"""The note in which `diffpack train` says how the modules it added are built."""


def write_lora(job: Export) -> bool:
    """Write the job's diff as an adapter; tell whether the adapter holds all of the diff bit for bit.

    Raises `UsageError` for what LoRA cannot hold, a change that is of no low rank (by name, with the error) among it;
    of a diff with factors that is left out.
    """
    diff, base = job.diff, job.needed_base
    most, tolerance = int(_number(job, "rank", _RANK, whole=True)), _number(job, "tolerance", _TOLERANCE)
    keeping = _keeps_others(job)
    check_base(diff, base, job.threads)
    trained = {
        name: plain
        for plain, name in plain_keys(diff, diff.name).items()
        if diff[name].kind == "new" and adapted(plain) is not None
    }
    alpha = _trained_alpha(diff.metadata.get(_BUILDER, ""))
    paired = [name for name, record in diff.items() if name.endswith(_WEIGHT) and fits_pair(record)]
    beyond = _beyond(job, trained, paired, alpha)
    if beyond and not paired:
        raise UsageError(
            f"{diff.name}: a LoRA adapter changes matrices and saves modules, but {listed(list(beyond.values()))}"
        )
    parts = Parts(Result(diff, base))
    for name, plain in trained.items():
        if name not in beyond:
            _keep_trained(parts, name, plain, alpha or 0.0)
    pairs = Paired(parts, paired)
    matrices = [name for name, record in diff.items() if _is_matrix(record) and name not in paired]
    factorised = matrices if not paired or {"rank", "tolerance"} & job.options.keys() else []
    missed = [found for name in factorised if (found := parts.factorise(name, most, tolerance)) is not None]
    others = diff.keys() - trained.keys() - {*paired, *matrices, *beyond}
    if keeping:
        parts.keep_modules(others, {name for name in others if diff[name].kind == "new"})
    if not parts.ranks:
        raise UsageError(f"{diff.name}: changes no matrix: there is nothing for LoRA to hold")
    written = parts.with_prefix(job.options.get("prefix", ""))
    write_adapter(job, written.tensors, _settings(job, written, trained=bool(trained)))
    note_left_out(job)
    left = list(beyond.values()), _whole(job, set(matrices) - set(factorised)), _whole(job, () if keeping else others)
    job.notes.extend(pairs.notes(*left))
    _note(job, parts, missed)
    return not missed and not paired and not any(left)


def _keeps_others(job: Export) -> bool:
    """Whether what is no layer with factors is kept. Raises `UsageError` for other words."""
    answer = job.options.get("others", "keep")
    if answer not in ("keep", "leave"):
        raise UsageError(f"others is keep or leave, not {answer!r}")
    return answer == "keep"


def _keep_trained(parts: Parts, name: str, plain: str, alpha: float) -> None:
    """Take a factor that training made as it is."""
    parts.keep(name, plain)
    if plain.endswith((".lora_A.weight", ".lora_embedding_A")):
        module = str(adapted(plain)).removesuffix(_WEIGHT)
        parts.ranks[module], parts.alphas[module] = parts.result.diff[name].shape[0], alpha


def _whole(job: Export, names: Iterable[str]) -> list[str]:
    """Records that are left out whole, for people."""
    return [f"{printable(name)} ({job.diff[name].info})" for name in sorted(names)]


def _number(job: Export, key: str, default: float, *, whole: bool = False) -> float:
    """An option that is a number of at least 0, a whole one of at least 1."""
    text = job.options.get(key)
    try:
        number = default if text is None else int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not number >= (1 if whole else 0):
        raise UsageError(f"{key} is a {'whole number from 1 on' if whole else 'number from 0 on'}, not {text!r}")
    return number


def _trained_alpha(note: str) -> float | None:
    """What `diffpack train --method lora` notes of its factors: alpha; None if there is no such note."""
    try:
        builder = json.loads(note)
        return float(builder["alpha"] if "alpha" in builder else 2 * builder["rank"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_matrix(record: TensorDiff) -> bool:
    """Whether a record is of a weight that LoRA adapts."""
    matrix = record.kind == "changed" and len(record.shape) == 2 and record.name.endswith(_WEIGHT)
    return matrix and record.info.dtype.arithmetic


def _beyond(job: Export, trained: Container[str], paired: Container[str], alpha: float | None) -> dict[str, str]:
    """What an adapter cannot say: tensors, and for people why."""
    diff = job.diff
    beyond = {name: f"{printable(name)} is tied to another" for name in diff.manifest.aliases}
    for name, record in diff.items():
        where = f"{printable(name)} ({record.kind}, {record.info})"
        if name in paired:
            continue
        if record.kind not in ("changed", "new"):
            beyond[name] = f"{where} has another shape or dtype than in the base"
        elif record.kind == "changed" and len(record.shape) > 1 and not _is_matrix(record):
            beyond[name] = f"{where} is no matrix of floats"
        elif "." not in name:
            beyond[name] = f"{where} is of no module"
        elif name in trained and alpha is None:
            beyond[name] = f"{where} is a factor whose scale no note says"
    return beyond


def _settings(job: Export, parts: Parts, *, trained: bool) -> dict[str, object]:
    """What `adapter_config.json` says. Modules of another rank than most have patterns, which match them alone."""
    base = job.diff.manifest.base
    rank = Counter(parts.ranks.values()).most_common(1)[0][0]
    alpha = Counter(parts.alphas.values()).most_common(1)[0][0]
    return {
        "alpha_pattern": {_pattern(name): value for name, value in parts.alphas.items() if value != alpha},
        "base_model_name_or_path": base.name,
        "bias": "all" if parts.biases else "none",
        "fan_in_fan_out": parts.turned,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": parts.saved or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {_pattern(name): value for name, value in parts.ranks.items() if value != rank},
        "revision": base.revision,
        "target_modules": sorted(parts.ranks),
        "task_type": "SEQ_CLS" if trained else None,
        "use_dora": False,
        "use_rslora": False,
    }


def _pattern(module: str) -> str:
    return f"^{re.escape(module)}"


def _note(job: Export, parts: Parts, missed: list[Missed]) -> None:
    """Say what the factors miss, and what the model that loads the adapter has to have."""
    if missed:
        worst, off = max(missed, key=lambda one: one.part), max(missed, key=lambda one: one.most)
        ranks = sorted(set(parts.ranks.values()))
        which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        job.notes.append(
            f"factors of {which} miss at most {worst.part:.2g} of a layer's change ({printable(worst.name)}), and "
            f"{off.most:.2g} of an entry ({printable(off.name)}); what PEFT merges of them is rounded once more"
        )
    new = [module for module in parts.saved if not any(name.startswith(f"{module}.") for name in parts.result.view.own)]
    if new:
        which = listed([printable(module) for module in new])
        job.notes.append(f"load it on a model that has {which}, which the base has not")
        if not job.diff.manifest.rename and "prefix" not in job.options:
            job.notes.append(
                "PEFT finds layers by their names: if that model has a name in front of the base's (bert., model.), "
                "the option prefix says so"
            )
    embeddings = [printable(module) for module in parts.ranks if is_embedding(module + _WEIGHT)]
    if embeddings:
        job.notes.append(f"a head that is tied to {listed(embeddings)} follows it in PEFT only when it is merged")
    if job.diff.manifest.removed:
        job.notes.append("what the diff removes, an adapter leaves: the class that loads it decides")
