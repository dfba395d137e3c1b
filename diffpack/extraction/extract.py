"""extract: two checkpoints -> a diff.

The data's way: pair the tensors, scan each pair (hash and compare), choose what to store, code it in chunks,
write the manifest. The file is written in one pass and read back through the ordinary reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff
from diffpack.extraction.choices import options_of
from diffpack.extraction.one_base import OneBase
from diffpack.support.cycles import rare_collections
from diffpack.support.memory import memory_told
from diffpack.support.parallel import Progress
from diffpack.tensors.rename_patterns import Renaming


@memory_told
@rare_collections()
def extract(
    base: CheckpointLike,
    tuned: CheckpointLike,
    output: str | os.PathLike[str] | None = None,
    *,
    density: float | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    rule: str | None = None,
    counts: Mapping[str, int] | None = None,
    values: str = "exact",
    budget: int | float | str | None = None,
    target_error: float | None = None,
    importance: CheckpointLike | None = None,
    rank: int | None = None,
    positions: str = "auto",
    profile: str = "compact",
    rename: Renaming | None = None,
    allow_removed: bool = False,
    layout: bool = True,
    files: bool | str | Iterable[str] = "all",
    code: bool = False,
    sha256: bool = False,
    base_name: str | None = None,
    base_revision: str | None = None,
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Store `tuned` as its difference from `base`.

    By default the diff is exact: applying it gives every tensor back bit for bit, and for safetensors the file.
    Choosing entries (`density`: fraction of all float entries, `top_k`: how many, `threshold`: smallest
    |difference|) or a value coding other than "exact" makes it lossy; integer tensors, new tensors and tensors
    with differences that are not finite stay exact. The largest differences over the whole model are chosen.

    A tensor is compared with the base tensor of its name; where that is none, or most of it differs, with another one
    of its dtype and shape that a sample shows to be clearly nearer (`diff.manifest.copies`; not with `rule`). A new
    tensor that is near to an old one stays exact, too. One that is made of slices of base tensors (three projections
    in one matrix, experts in one stack, the way back, turned or not) is compared with those, as if the base had it
    (`diff.manifest.slices`).

    With `rule` the entries are chosen not by their change but by what every reader knows, and their positions take no
    bytes: "smallest" or "largest" (the base's magnitudes), or "random N" (N a seed); of each tensor the fraction
    `density`, or `counts` (name -> how many; tensors not named are kept whole).

    `budget` (bytes of the file: 500000, "1MB", "1M"; or a part of the base's bytes: "0.3%", 0.003) and `target_error`
    (relative L2 error of the result) are met at the best point of rate and distortion found: the diff lands at most 1 %
    under them. Matrices whose change has few directions get low-rank factors where these are worth their bytes, of rank
    `rank` at most if that is given; 0 leaves them out. `values="lowrank"` stores without a budget the first `rank`
    directions (16) of every matrix's change, and the differences of all that is no matrix as f32.
    `importance` weighs the squared error of tensors: a checkpoint whose tensors, by the tuned's names, hold a weight
    for the tensor or for each entry (a Fisher estimate, say), of which the mean counts.

    `positions` chooses how exact changes are stored: "auto" takes what is estimated to be smallest for each tensor.

    A tuned checkpoint in which over half of the base's entries are gone (an adapter, one of several shards) is refused
    unless `allow_removed`.

    With `output` the file is written there in one pass; without, the diff lives in an unnamed temporary file.
    `sha256` also records the tuned files' SHA-256. `metadata` is free text for people.

    Tensors that have other names in the tuned checkpoint are found by themselves: by a prefix, by equal or near
    contents, by the names of their neighbours. `rename` says it instead, for the base's names: (old, new) pairs, of
    which the first that fits is taken, old being a prefix or a compiled regular expression (as for `re.sub`); or a
    function from name to name; () for none.

    Of a model folder `files` says which side files (configuration, tokenizer, templates, in sub-folders too) are kept:
    "all", "model" (those that describe the model, not its tokenizer), "none", or names and patterns of files; apply
    gives the base's for those that are not. `code` also keeps those that are code, which apply then has to be asked
    for. What of the tuned files is in no diff is named in `tuned.left_out` and in the file's recipe; entries that
    lossy values make infinite are told in `tuned.notes`.

    `progress` is told what is being done, and how many of the tuned checkpoint's bytes are done of all, as a part of
    the whole run: it never goes back, also over the passes of a budget.

    Raises `CheckpointError`, `UsageError` (options that do not fit, an existing output without `force`).
    """
    options = options_of(
        density=density,
        top_k=top_k,
        threshold=threshold,
        rule=rule,
        counts=counts,
        values=values,
        budget=budget,
        target_error=target_error,
        importance=importance,
        rank=rank,
        positions=positions,
        profile=profile,
        rename=rename,
        allow_removed=allow_removed,
        layout=layout,
        files=files,
        code=code,
        sha256=sha256,
        base_name=base_name,
        base_revision=base_revision,
        threads=threads,
    )
    one_base = OneBase.of(base, importance)
    return one_base.extract(open_checkpoint(tuned), output, options, metadata or {}, force=force, progress=progress)
