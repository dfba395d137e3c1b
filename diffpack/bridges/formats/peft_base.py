"""An adapter's names and those of its base: with the name of the model within a model, or without; tied heads.

transformers stores the weights of a bare model without the name its head's class gives it (`encoder.` rather than
`bert.encoder.`), and finds them under either when it loads. An adapter has the names of the class it was trained in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from diffpack.bridges.bridge import Import
from diffpack.bridges.formats.peft_adapter import Adapter
from diffpack.bridges.formats.peft_keys import adapted, unwrapped
from diffpack.checkpoints import Checkpoint
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.prefix_search import cuts
from diffpack.tensors.rename import Rename, own_names

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "shared", "embed_in", "tok_embeddings")
"""What transformers calls embeddings of words."""
HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight", "lm_head.decoder.weight")
"""What it calls heads that may be tied to them and are then in no file."""
_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared)\.weight$")  # how libraries call their embeddings
_DEEPEST = 3  # parts of a name that a model within a model adds
_MOST_SETTINGS = 1 << 24


def is_embedding(name: str) -> bool:
    """Whether a weight's name is that of an embedding: of words, positions, kinds of tokens."""
    return _EMBEDDING.search(name) is not None and not is_head(name)


def is_head(name: str) -> bool:
    """Whether a tensor's name is that of a head that may be tied."""
    return any(name == head or name.endswith(f".{head}") for head in HEADS)


def with_names_of(job: Import, adapter: Adapter) -> Import:
    """The job with a rename rule where the base's names have one prefix more or less than the adapter's.

    A job that has rules keeps them. Raises `UsageError` if several prefixes fit.
    """
    if job.rename:
        return job
    base = job.needed_base.tensors
    wanted = {name for key in adapter.keys if (name := adapted(key)) is not None}
    wanted = wanted or {unwrapped(key) for key in adapter.keys}
    missing = sorted(name for name in wanted if name not in base and not is_head(name))
    if not missing:
        return job
    found = [rules for rules in _prefixes(missing[0], base, wanted) if _leads(base, rules, missing)]
    if len(found) > 1:
        which = listed([f"{old}={new}" for rules in found for old, new in rules[-1:]])
        raise UsageError(
            f"{job.source}: its {printable(missing[0])} may be several tensors of the base; say which by --rename, one "
            f"of {which}"
        )
    if not found:
        return job
    old, new = found[0][-1]
    job.notes.append(
        f"the base's names have no {new!r} in front, the adapter's do: taken as the same"
        if new
        else f"the base's names have {old!r} in front, the adapter's do not: taken as the same"
    )
    return replace(job, rename=found[0])


def _prefixes(name: str, base: Mapping[str, TensorInfo], wanted: set[str]) -> list[Rename]:
    """The rules that lead from a base tensor to a name, by a prefix more or less."""
    kept = tuple((own, own) for own in base if own in wanted or is_head(own))
    rules: list[Rename] = []
    for prefix, tail in islice(cuts(name), 1, 1 + _DEEPEST):
        if tail in base:
            rules.append((*kept, ("", prefix)))
    return rules + [((own.removesuffix(name), ""),) for own in base if own.endswith(f".{name}")]


def _leads(base: Mapping[str, TensorInfo], rules: Rename, names: list[str]) -> bool:
    try:
        view = own_names(base, rules)
    except UsageError:
        return False
    return all(name in view for name in names)


def tied_heads(job: Import, adapter: Adapter) -> dict[str, str]:
    """The heads the adapter has factors of and the base no tensor, and the embedding each is tied to.

    Names are those of the adapter. A head is tied to the one embedding of its shape, unless the base's config.json says
    that it is not. Raises `UsageError` if several embeddings could be meant.
    """
    view, base = job.view(), job.needed_base
    heads = {name for key in adapter.keys if (name := adapted(key)) is not None and name not in view and is_head(name)}
    if not heads or _says_untied(base):
        return {}
    embeddings = [name for name in view if name.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS]
    tied = {}
    for head in sorted(heads):
        rows, columns = _shape(head, adapter)
        fitting = [name for name in embeddings if base.info(view[name]).shape == (rows, columns)]
        fitting = [name for name in fitting if view[name] not in base.ties] or fitting
        if len(fitting) > 1:
            which = listed([printable(name) for name in sorted(fitting)])
            raise UsageError(
                f"{job.source}: the base has no {printable(head)}, which may be tied to any of {which}: save the base "
                "with a tensor of its own for it"
            )
        if fitting:
            tied[head] = fitting[0]
    return tied


def _shape(head: str, adapter: Adapter) -> tuple[int, int]:
    """Rows and columns that a head's factors are for, or (0, 0)."""
    module = head.removesuffix(".weight")
    shapes = [
        adapter.weights.info(key).shape
        for end in ("lora_A", "lora_B")
        for key in [adapter.keys.get(f"{module}.{end}.weight")]
        if key is not None
    ]
    if len(shapes) < 2 or any(len(shape) != 2 for shape in shapes):
        return (0, 0)
    return shapes[1][0], shapes[0][1]


def _says_untied(base: Checkpoint) -> bool:
    """Whether the model's configuration stands beside the base and says that its head has weights of its own."""
    path = base.folder or (base.path.parent if base.path is not None and base.path.is_file() else base.path)
    config = None if path is None else path / "config.json"
    if config is None or not config.is_file() or config.stat().st_size > _MOST_SETTINGS:
        return False
    try:
        settings = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and settings.get("tie_word_embeddings") is False
