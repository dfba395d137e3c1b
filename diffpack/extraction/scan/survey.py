"""What is found out about two checkpoints before anything of their diff is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.diff.summary import base_summary, result_summary
from diffpack.extraction.options import Options
from diffpack.extraction.scan.assemblies import may_be_made, slices_of, with_assemblies
from diffpack.extraction.scan.gone import used_of_base
from diffpack.extraction.scan.norms import norms
from diffpack.extraction.scan.pairs import Pair, Pairing, pair_up
from diffpack.extraction.scan.references import with_better_references
from diffpack.extraction.scan.rename_advice import rename_advice
from diffpack.extraction.scan.renames import renames_of
from diffpack.extraction.scan.scan import Digests, Scan, known_scan, scan_run
from diffpack.format.manifest import CheckpointSummary, ResultSummary
from diffpack.support.parallel import run_in_order
from diffpack.tensors.digests import combine
from diffpack.tensors.info import TensorInfo, runs
from diffpack.tensors.slices import Assembly


@dataclass(frozen=True)
class Survey:
    """Pairs of tensors, their scans, those to store, tied ones, and what the manifest says of both checkpoints.

    `copies` leads from tensors that are compared with a base tensor of another name to that (renamed) one,
    `slices` to those they are compared with instead.
    `used` names the base's tensors that the result still has something of, by the base's own names.
    """

    base: Checkpoint
    tuned: Checkpoint
    pairing: Pairing
    scans: list[Scan]
    stored: list[Scan]
    aliases: dict[str, str]
    copies: dict[str, str]
    slices: dict[str, Assembly]
    used: set[str]
    base_summary: CheckpointSummary
    tuned_summary: ResultSummary

    @cached_property
    def moved(self) -> dict[str, float]:
        """The norm of each stored tensor's change, which errors are measured by; found when first needed."""
        return norms(self.stored)


def survey(
    base: Checkpoint,
    tuned: Checkpoint,
    options: Options,
    scanned: Callable[[Sequence[Scan]], None] | None = None,
    base_digests: dict[str, bytes] | None = None,
) -> Survey:
    """Pair the tensors of two checkpoints and scan each pair. Raises `UsageError` for rules that do not fit.

    `base_digests` are those (32 bytes) of the base's tensors that are known before, which are not hashed again; all
    others are added to it. `scanned` is told of scans as they come.
    """
    renames = renames_of(base, tuned, options.rename, options.threads, base_digests)
    pairing = pair_up(base.tensors, tuned.tensors, renames.rename)
    scan_all = partial(_scan_all, base=base, tuned=tuned, known=renames.digests, threads=options.threads)
    found = scan_all([pair for pair in pairing.pairs if not may_be_made(pair)], scanned)
    pairing = with_assemblies(pairing, found, base, tuned, options.profile)
    new = scan_all([pair for pair in pairing.pairs if pair.name not in found], scanned)
    others = scan_all([pair for pair in pairing.pairs if pair.name in found and found[pair.name].pair is not pair])
    digests = _base_digests([*found.values(), *new.values()], base, renames.digests, options.threads)
    found |= new | others
    scans = [found[pair.name] for pair in pairing.pairs]
    stored, aliases = split_aliases(scans)
    if base_digests is not None:
        base_digests |= digests
    if options.selection.rule is None:  # which tells words by their tensor's own reference
        stored = with_better_references(
            stored, base, tuned, pairing.rename, digests, profile=options.profile, threads=options.threads
        )
        better = {item.pair.name: item for item in stored}
        scans = [better.get(item.pair.name, item) for item in scans]
    if (advice := rename_advice(stored, base, tuned, pairing, options.threads)) is not None:
        tuned.advice.append(advice)
    copies = {item.pair.name: item.pair.source for item in stored if item.pair.source is not None}
    stored = [item for item in stored if not item.unchanged]
    of_base = base_summary(combine(base.tensors, digests), base.tensors, options.base_name, options.base_revision)
    tuned_digests = {item.pair.name: item.digest for item in scans}
    of_tuned = result_summary(combine(tuned.tensors, tuned_digests), tuned.tensors)
    slices = slices_of((item.pair for item in scans), aliases)
    used = used_of_base(scans, base.tensors, digests, pairing.rename)
    return Survey(base, tuned, pairing, scans, stored, aliases, copies, slices, used, of_base, of_tuned)


def _scan_all(
    pairs: Sequence[Pair],
    scanned: Callable[[Sequence[Scan]], None] | None = None,
    *,
    base: Checkpoint,
    tuned: Checkpoint,
    known: Digests,
    threads: int | None,
) -> dict[str, Scan]:
    """Scan pairs, the largest first so that threads end together; give the scans by name.

    Small tensors are scanned in runs, in the order in which the tuned files hold them.
    """
    found: dict[str, Scan] = {}
    if known.tuned:
        equal = (known_scan(pair, base, tuned, known) for pair in pairs)
        found = {item.pair.name: item for item in equal if item is not None}
    wanted = {pair.name: pair for pair in pairs if pair.name not in found}
    order = [wanted[name] for name in tuned.tensors if name in wanted] if wanted else []
    jobs = [order[run] for run in runs(pair.info for pair in order)]
    jobs.sort(key=lambda run: -sum(pair.info.nbytes for pair in run))
    if scanned is not None and found:
        scanned(list(found.values()))
    for scans in run_in_order((partial(scan_run, run, base, tuned, known.base) for run in jobs), threads):
        for item in scans:
            found[item.pair.name] = item
        if scanned is not None:
            scanned(scans)
    return found


def _base_digests(scans: Sequence[Scan], base: Checkpoint, known: Digests, threads: int | None) -> dict[str, bytes]:
    """The digests of all base tensors; those that were in no pair and are not known yet are hashed here."""
    paired = ((item.pair.base_name, item.base_digest) for item in scans)
    own = known.base | {name: digest for name, digest in paired if name is not None and digest}
    return own | digests_of(base, (name for name in base.tensors if name not in own), threads)


_ALIAS_BYTES = 64  # a smaller tensor costs less as a record of its own


def split_aliases(scans: Sequence[Scan]) -> tuple[list[Scan], dict[str, str]]:
    """Split what must be stored from tensors that are equal to another one of the result (tied weights).

    Of equal tensors that one is stored which has the fewest words to store, whatever its name: the one the base has.
    """
    times = Counter(item.digest for item in scans)
    repeated = [item for item in scans if times[item.digest] > 1]
    first: dict[tuple[TensorInfo, bytes], str] = {}
    for item in sorted(repeated, key=lambda item: (not item.unchanged, item.count)):
        first.setdefault((item.pair.info, item.digest), item.pair.name)
    stored, aliases = [], {}
    for item in scans:
        if item.unchanged:
            continue
        target = first.get((item.pair.info, item.digest), item.pair.name)
        if target != item.pair.name and item.pair.info.nbytes >= _ALIAS_BYTES:
            aliases[item.pair.name] = target
        else:
            stored.append(item)
    return stored, aliases
