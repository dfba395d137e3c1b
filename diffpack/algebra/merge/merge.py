"""merge: several diffs of one base -> one diff, by a method of the registry."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from diffpack.algebra.checks import check_base, check_names
from diffpack.algebra.lifted import lifted
from diffpack.algebra.merge.choices import Choices, PerDiff, choose
from diffpack.algebra.merge.forms import refuse_mixed_forms
from diffpack.algebra.merge.job import MergeJob
from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.methods import find_method
from diffpack.algebra.merge.per_tensor import Setting
from diffpack.algebra.merge.structure import Wishes
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.sums import Sums
from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diffs
from diffpack.diff.entries import check_profile
from diffpack.diff.publish import write_diff
from diffpack.diff.stored_chunks import write_again
from diffpack.errors import BaseNeededError, UsageError, WrongBaseError
from diffpack.format.manifest import Manifest
from diffpack.format.values import ValueCoding
from diffpack.format.values.floats import F32, FLOATS
from diffpack.format.values.int8 import INT8
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.parallel import Progress

VALUE_CHOICES: dict[str, ValueCoding] = {**FLOATS, INT8.id: INT8}
"""How merged values may be stored: they are floats, so never as steps."""


@memory_told
def merge(
    diffs: DiffLike | Sequence[DiffLike],
    output: str | os.PathLike[str] | None = None,
    *,
    method: str = "task_arithmetic",
    weights: Sequence[Setting] | None = None,
    normalize: bool | None = None,
    density: PerDiff | None = None,
    scale: Setting = 1.0,
    t: Setting | None = None,
    seed: int = 0,
    gamma: PerDiff = 0.01,
    epsilon: PerDiff | None = None,
    rescale: str = "expected",
    exclude: Sequence[str] = (),
    take: Mapping[str, int | DiffLike] | None = None,
    mix: Sequence[str] = (),
    base: CheckpointLike | None = None,
    values: str | None = None,
    clip: bool = False,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Merge diffs of one base into one diff, which is lossy: its values are floats to add to the base.

    `method` is a name in `METHODS` of this package; `weights` has a number for each diff (default 1), `density` is the
    fraction of each tensor's entries that a method keeps of each diff, `scale` multiplies the result (lambda of the
    papers), `normalize` divides by the weights that counted (None: as the method does), `t` is for slerp, `seed` for
    random methods, `gamma` for breadcrumbs, `epsilon` for della and sce, `rescale` says how random methods make up for
    what they drop. `values` is how merged values are stored (default f32).

    Each of these numbers may be a mapping from patterns of tensor names to numbers, of which the first that fits
    counts (a pattern with *, ? or [ fits whole names, another a part), or a list of numbers between which the layers
    are interpolated; `density`, `gamma` and `epsilon` may be a list of such settings, one for each diff.

    Tensors that are not floats, and new or resized ones that one diff alone has, are taken over as they are; a tensor
    is removed or tied if it is so in every diff. Vocabularies of different sizes become the union of their rows. New or
    resized tensors of several diffs, and classifiers of other labels, are refused unless `mix` has a pattern for them,
    or the labels have the same names: then they are averaged. Tensors that patterns in `exclude` fit are left as the
    base has them; those of `take` are the diff's that it leads to (its place in `diffs`, or the diff as it stands
    there), as they are. Side files are those of the diff that heads come from, else the base's.

    Diffs that rename the base's tensors differently meet by the base's names; the merged diff has the names of the
    first. Exact diffs are decoded against `base`, which they need, as slerp and numbers along the layers do; with it
    the result's fingerprint is recorded, and sums that the result's dtype cannot hold are refused, or with `clip` end
    at its largest finite number; and so is the error: how far the result, of rounded values and sums, is from the base
    and the merged differences. Without it the merge is unsealed, sums are not checked, no error is known. One diff
    alone, with a weight of 1, is given back as it is. `notes` grow: remarks for people.

    Raises `UsageError` (settings, patterns that fit nothing, diffs that cannot be brought together, sums beyond a
    dtype), `WrongBaseError` (diffs of different bases, another base), `BaseNeededError`, `CorruptFileError`.
    """
    check_profile(profile)
    if values is not None and values not in VALUE_CHOICES:
        raise UsageError(f"values of a merge are one of {', '.join(VALUE_CHOICES)}, not {values!r}")
    opened = open_diffs(diffs)
    if not opened:
        raise UsageError("no diff to merge")
    chosen = find_method(method)
    choices = choose(
        len(opened), weights=weights, density=density, normalize=normalize, scale=scale, t=t, seed=seed, gamma=gamma,
        epsilon=epsilon, rescale=rescale,
    )  # fmt: skip
    wishes = Wishes(_patterns("exclude", exclude), _places(take or {}, diffs, opened), _patterns("mix", mix))
    choices.check(chosen, len(opened))
    _check_bases(opened)
    if clip and base is None:
        raise BaseNeededError("clip: whether a sum is more than its dtype holds only the base tells: give the base")
    checkpoint = None if base is None else open_checkpoint(base)
    inputs = Inputs(files_behind(opened, checkpoint))
    if checkpoint is not None:
        check_base(opened[0], checkpoint, threads)
        for other in opened[1:]:
            check_names(other, checkpoint)
    itself = values is None and not wishes and _is_itself(chosen, choices)
    if itself and (opened[0].exact or not clip):
        manifest = _manifest_of_one(opened[0], profile, metadata)
        return write_diff(output, inputs, force, partial(write_again, diff=opened[0], manifest=manifest))
    lift = lifted(opened, checkpoint, threads)
    if lift is None and checkpoint is not None:
        refuse_mixed_forms(opened, checkpoint, wishes)
    job = MergeJob(
        lift.diffs if lift is not None else [by_own_names(diff, checkpoint, threads) for diff in opened],
        chosen,
        choices,
        wishes,
        lift.base if lift is not None else checkpoint,
        VALUE_CHOICES[values or F32.id],
        profile,
        dict(metadata or {}),
        threads,
        progress,
        Sums(clip),
        notes if notes is not None else [],
    )
    if lift is None:
        return write_diff(output, inputs, force, job.write)
    merged = write_diff(None, inputs, False, job.write)
    return write_diff(output, inputs, force, partial(lift.write_lowered, diff=merged))


def _check_bases(diffs: Sequence[Diff]) -> None:
    first = diffs[0]
    for diff in diffs[1:]:
        expected, actual = first.manifest.base.fingerprint, diff.manifest.base.fingerprint
        if expected != actual:
            raise WrongBaseError(
                f"{diff.name}: not a diff of the base of {first.name} (its base is {actual}, that one's {expected})",
                hint="`diffpack rebase` carries a diff over to another base",
            )


def _patterns(what: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str) or not all(patterns):
        raise UsageError(f"{what} is a list of patterns of tensor names, not {patterns!r}")
    return tuple(patterns)


def _places(take: Mapping[str, int | DiffLike], given: object, opened: Sequence[Diff]) -> dict[str, int]:
    """The place of the diff that each pattern leads to."""
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    if not isinstance(take, Mapping):
        raise UsageError(f"take leads from patterns of tensor names to diffs, and is not {take!r}")
    found = {}
    for pattern, said in take.items():
        if isinstance(said, int):
            places = [said] if 0 <= said < len(opened) else []
        else:
            places = [at for at, item in enumerate(listed) if item is said or str(item) == str(said)]
        if not pattern or len(places) != 1:
            raise UsageError(f"take: {pattern!r} is to come from {said!r}, which is not one of the {len(opened)} diffs")
        found[pattern] = places[0]
    return found


def _is_itself(method: Method, choices: Choices) -> bool:
    """Whether the merge is the one diff it is made of."""
    settings = choices.plain
    if settings is None:
        return False
    whole = method.prune is None or settings.density in (None, 1)
    factor = 1.0 if method.normalize else settings.weights[0]
    return whole and factor == 1 == settings.scale and settings.normalize is None


def _manifest_of_one(diff: Diff, profile: str, metadata: Mapping[str, str] | None) -> Manifest:
    """The manifest of a merge that is the one diff it is made of. Raises `UsageError` for another profile."""
    if profile == "portable" and "pco" in diff.manifest.requires:
        raise UsageError("one diff is given back as it is; that it be portable is chosen where it is made")
    return diff.manifest if metadata is None else replace(diff.manifest, metadata=dict(metadata))
