"""The transformers model of a base and a diff, on memory that models of the same base share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from diffpack.checkpoints import Checkpoint, open_checkpoint
from diffpack.checkpoints.torch_tensors import as_tensor
from diffpack.diff.diff import Diff, DiffLike, open_diff
from diffpack.errors import ResultMismatchError, UsageError, WrongBaseError
from diffpack.live.models.model_class import (
    CONFIG,
    GENERATION,
    build_config,
    find_class,
    import_transformers,
    read_configs,
)
from diffpack.live.models.placement import settle
from diffpack.live.shared_memory import SharedBase
from diffpack.result.apply import made
from diffpack.result.result import Result
from diffpack.result.wrong_base import told_where
from diffpack.support.quietly import quiet_transformers

_REFUSED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)
"""What transformers raises for tensors it cannot make a model of."""


def from_pretrained(
    base: str | os.PathLike[str] | Checkpoint,
    diff: DiffLike,
    *,
    model_class: type | str | None = None,
    attn_implementation: str | None = None,
    device: str | torch.device = "cpu",
    share: bool = True,
    verify: bool = True,
    threads: int | None = None,
) -> Any:
    """The result of a diff as a model of transformers, in evaluation mode, with the head and labels it was tuned with.

    `base` is the base's model folder. Configuration and class are those of the result (its config.json, kept by the
    diff, else the base's); `model_class` names another: a class of transformers, its name, or an Auto class. Only
    classes of transformers are built: code that came with a model is never run. All parameters and stored buffers are
    the result's tensors bit for bit, in their own dtypes; nothing is cast, and nothing drawn at random. Tied weights
    are tied.

    Models of one base share its memory where they do not change it: each tensor of the base is read once in a process,
    and held as long as a model has it. So their parameters want no gradients, and nobody may write into them
    (`is_shared` tells, the task switcher refuses); `share=False` gives a model of its own, ready to be trained. On
    another `device` the models there share, too.

    Base and result are checked as `diffpack.load` does, the memory that is shared each time anew: what somebody wrote
    into it is found, and read again from the files. With `verify` false only the base tensors that the diff touches
    are checked. The files are hashed once, and again when they are others (by identity, size and time of change).

    Raises as `diffpack.load`, `UsageError` for a diff that only the trainer can build (`diffpack.train.load_task`),
    for classes that transformers lacks, and for tensors that do not fit the class, by name; `MissingDependencyError`
    without transformers.
    """
    place = _device(device)
    opened, files = open_diff(diff), open_checkpoint(base)
    if files.live:
        raise UsageError("the base is a model folder: its files are read, and its config.json")
    _refuse_builders(opened)
    configs = read_configs(opened, files)
    config = build_config(configs[CONFIG], opened.name)
    chosen = find_class(config, model_class, opened.name)
    shared = SharedBase.of(files, threads) if share else None
    with told_where(opened, files, threads):
        tensors = _checked_tensors(opened, files, shared, verify=verify, threads=threads)
    model = _settled(partial(_built, chosen, config, tensors, opened.name, attn_implementation), tensors, opened.name)
    if GENERATION in configs and model.can_generate():
        model.generation_config = import_transformers().GenerationConfig.from_dict(configs[GENERATION])
    return _moved(model.requires_grad_(not share), shared, place)


def _settled(build: Callable[[int], Any], tensors: Mapping[str, torch.Tensor], where: str) -> Any:
    """A model built of tensors, all of which have their place in it; it may be built twice to make sure."""
    model = build(0)
    settle(model, tensors, partial(build, 1), where)
    return model


def _device(device: str | torch.device) -> torch.device:
    """A device as torch calls it, with its number. Raises `UsageError` for one that is not there."""
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UsageError(f"the device {device!r} is none that torch has here: {str(error).splitlines()[0]}") from None
    if found.type == "meta":
        raise UsageError("the device meta holds no values")
    return found


def _refuse_builders(diff: Diff) -> None:
    """Raise `UsageError` for modules that no class of transformers has."""
    if diff.metadata.get("builder", "{}") not in ("", "{}", "null"):
        raise UsageError(
            f"{diff.name}: has modules that the bundled trainer adds to a model (adapters, LoRA): "
            "diffpack.train.load_task(base, diff) builds them"
        )


def _checked_tensors(
    diff: Diff, files: Checkpoint, shared: SharedBase | None, *, verify: bool, threads: int | None
) -> dict[str, torch.Tensor]:
    """The result's tensors by name: those of the base in shared memory, the others in memory of their own.

    Where shared memory was there before and is not what it should be, it is read from the files again.
    """
    try:
        return _tensors(diff, files, shared, verify=verify, threads=threads)
    except (WrongBaseError, ResultMismatchError):
        if shared is None or not shared.reused:
            raise
        shared.forget()
        return _tensors(diff, files, shared, verify=verify, threads=threads)


def _tensors(
    diff: Diff, files: Checkpoint, shared: SharedBase | None, *, verify: bool, threads: int | None
) -> dict[str, torch.Tensor]:
    result = Result(diff, files if shared is None else shared, verify=verify, threads=threads)
    kept: dict[str, torch.Tensor] = {}
    if shared is not None:
        kept = {name: shared.tensor(own) for name, own in _unchanged(result).items()}
    arrays = made(result, verify=verify, threads=threads, without=kept)
    tensors = {name: as_tensor(words, result.tensors[name], name) for name, words in arrays.items()}
    return {name: kept[name] if name in kept else tensors[name] for name in result.tensors}


def _unchanged(result: Result) -> dict[str, str]:
    """The result's tensors that are the base's, with the base's names for them; each tensor of the base once.

    What is equal to another tensor without being tied to it by the class must have memory of its own.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    aliases = result.diff.manifest.aliases
    for name in result.tensors:
        own = result.view.own.get(name)
        if own is None or name in result.diff or name in aliases or own in taken:
            continue
        taken.add(own)
        found[name] = own
    return found


def _built(
    chosen: Any, config: Any, tensors: Mapping[str, torch.Tensor], where: str, attention: str | None, seed: int
) -> Any:
    """Build a class of transformers on given tensors, whose memory it takes. Raises `UsageError`."""
    options = {} if attention is None else {"attn_implementation": attention}
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = chosen.from_pretrained(
                None, config=config, state_dict=dict(tensors), dtype=_most_common(tensors), local_files_only=True,
                **options,
            )  # fmt: skip
        except _REFUSED as error:
            told = " ".join(str(error).split())
            raise UsageError(f"{where}: its tensors make no {chosen.__name__}: {told[:_MOST_TOLD]}") from None
    model.config.name_or_path = config.name_or_path
    return model


_MOST_TOLD = 400
"""Characters of what transformers says, which may list every tensor."""


def _most_common(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The dtype of most entries, of those a model can be built in; others are put back afterwards."""
    entries: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            entries[tensor.dtype] += tensor.numel()
    return max(entries, key=entries.__getitem__, default=torch.float32)


def _moved(model: Any, shared: SharedBase | None, device: torch.device) -> Any:
    """The model on a device, where it has the tensors of the base that other models have there."""
    if device.type == "cpu":
        return model
    if shared is None:
        return model.to(device)
    names = shared.names_by_address()

    def move(tensor: torch.Tensor) -> torch.Tensor:
        name = names.get(tensor.data_ptr()) if tensor.device.type == "cpu" else None
        return tensor.to(device) if name is None else shared.on_device(name, device)

    return model._apply(move)
