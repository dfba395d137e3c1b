"""Run a pair's commands in turn as whole processes, with the files in the page cache, and keep the best of each."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.processes import READ_AND_HASH, READ_WRITE_HASH, timed
from benchmarks.size.contenders import Contender
from benchmarks.speed.results import APPLY, EXTRACT, Row
from diffpack.format.features import PROFILES

ROUNDS = 5
SLOW = 20.0
"""Seconds from which on a round of all commands is not repeated."""
PEER_LIMIT = 60.0


@dataclass
class _Best:
    seconds: float = float("inf")
    peak: int = 0

    def take(self, measured: tuple[float, int]) -> None:
        self.seconds, self.peak = min(self.seconds, measured[0]), max(self.peak, measured[1])


def weights_in(path: Path) -> list[str]:
    """The safetensors files of a checkpoint."""
    return [str(path)] if path.is_file() else sorted(str(file) for file in path.glob("*.safetensors"))


def measure(kind: str, megabytes: int, pair: tuple[Path, Path], work: Path, machine: str) -> list[Row]:
    """Rows of all profiles on a pair; exits if what comes back is not the tuned checkpoint."""
    base, tuned = pair
    program = [sys.executable, "-m", "diffpack_cli"]
    whole, copy = work / "plain.bin", work / "restored"
    # a folder is hashed file by file; it is copied as one file of the same bytes
    source = base if base.is_file() else joined(base, work / "joined.bin")
    plain = {
        EXTRACT: [sys.executable, "-c", READ_AND_HASH, *weights_in(base), *weights_in(tuned)],
        APPLY: [sys.executable, "-c", READ_WRITE_HASH, str(source), str(whole)],
    }
    best = {("", verb): _Best() for verb in plain}
    best |= {(profile, verb): _Best() for profile in PROFILES for verb in plain}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for verb, command in plain.items():
            best["", verb].take(timed(command))
        for profile in PROFILES:
            diff = work / f"{profile}.dpk"
            out = copy if base.is_dir() else copy.with_suffix(".safetensors")
            sides = ["--base", str(base), "--tuned", str(tuned)]
            making = [*program, EXTRACT, *sides, "-o", str(diff), "--profile", profile, "--force", "-q"]
            best[profile, EXTRACT].take(timed(making))
            giving = [*program, APPLY, "--base", str(base), str(diff), "-o", str(out), "--force", "-q"]
            best[profile, APPLY].take(timed(giving))
            if profile not in sizes:
                sizes[profile] = diff.stat().st_size
                check_same(tuned, out)
        if sum(one.seconds for one in best.values()) > SLOW:
            break
    rows = []
    for (profile, verb), one in best.items():
        against = best["", verb].seconds
        size = sizes.get(profile, 0)
        rows.append(
            Row(kind, megabytes, f"diffpack {profile}" if profile else "plain", verb, round(one.seconds, 3),
                round(against, 3), size, round(one.peak / 1e6, 1), machine)
        )  # fmt: skip
    return rows


def joined(folder: Path, target: Path) -> Path:
    """The bytes of a folder's weights as one file."""
    with target.open("wb") as out:
        for name in weights_in(folder):
            with open(name, "rb") as file:
                shutil.copyfileobj(file, out)
    return target


def check_same(tuned: Path, restored: Path) -> None:
    """Exit unless both have the same bytes."""
    names = [Path(name) for name in weights_in(tuned)]
    others = [restored / name.name if restored.is_dir() else restored for name in names]
    if not all(filecmp.cmp(one, other, shallow=False) for one, other in zip(names, others, strict=True)):
        sys.exit(f"{restored}: not the bytes of {tuned}")


def measure_peer(
    peer: Contender, python: Path, pair: tuple[Path, Path], work: Path, plain: Mapping[str, Row]
) -> list[Row]:
    """Rows of another tool, once each, beside the `plain` rows; none for what fails or takes over a minute."""
    out, result = work / "peer", work / "peer.safetensors"
    commands = {EXTRACT: peer.encode(python, *pair, out), APPLY: peer.decode(python, pair[0], out, result)}
    rows = []
    for verb, command in commands.items():
        try:
            seconds, peak = timed(command, PEER_LIMIT)
        except (SystemExit, subprocess.TimeoutExpired) as error:
            print(f"{peer.name}, {verb}: {error}", file=sys.stderr)
            break
        size = sum(part.stat().st_size for part in out.rglob("*")) if out.is_dir() else out.stat().st_size
        own = {"tool": peer.name, "seconds": round(seconds, 3), "diff_bytes": size, "peak_mb": round(peak / 1e6, 1)}
        rows.append(replace(plain[verb], **own))  # type: ignore[arg-type]
    for path in (out, result):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return rows
