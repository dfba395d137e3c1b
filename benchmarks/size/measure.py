"""Run one tool on one pair as whole processes, and compare what comes back word by word."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.size.catalogue import Pair
from benchmarks.size.contenders import ROOT, Contender
from benchmarks.size.entropy import Facts
from benchmarks.size.results import Row
from benchmarks.size.tensors import read

ROUNDS = 3
FAST = 10.0  # seconds up to which a process is run again for the best of ROUNDS
LONGEST_NOTE = 160


class FailedError(Exception):
    """A process ended without its output; the text is the row's note."""


@dataclass(frozen=True)
class Setting:
    """Where peers run, for how long at most, and on what."""

    python: Path
    limit: float
    versions: dict[str, str]
    machine: str


def measure(contender: Contender, pair: Pair, facts: Facts, setting: Setting) -> Row:
    """Encode, decode, compare. Whatever goes wrong becomes a row that says so."""
    size, encode_s, decode_s, exact, note = -1, 0.0, 0.0, "-", ""
    with tempfile.TemporaryDirectory() as name:
        out, result = Path(name) / "out", Path(name) / "result.safetensors"
        try:
            command = contender.encode(setting.python, pair.base, pair.tuned, out)
            encode_s = best_of(command, Path(name), setting.limit)
            size = bytes_of(out)
            command = contender.decode(setting.python, pair.base, out, result)
            decode_s = best_of(command, Path(name), setting.limit, result)
            exact, note = compared(pair.tuned, result)
        except FailedError as failed:
            note = str(failed)
    version = setting.versions.get(contender.package, contender.package)
    return Row(
        pair.name, contender.name, version, size, facts.tensor_bytes, facts.words,
        facts.changed, round(encode_s, 2), round(decode_s, 2), exact, note, setting.machine,
    )  # fmt: skip


def best_of(command: list[str], folder: Path, limit: float, result: Path | None = None) -> float:
    """Run a command up to three times, in a folder emptied of what the last run made, and give the best seconds."""
    before = set(folder.iterdir())
    best = timed(command, limit)
    for _ in range(ROUNDS - 1):
        if best > FAST:
            break
        for path in set(folder.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        best = min(best, timed(command, limit))
    if result and not result.exists():
        raise FailedError("decoding gave no file")
    return best


def timed(command: list[str], limit: float) -> float:
    """Run a process and all it starts; give its wall seconds. Raises `FailedError` if it fails or takes too long."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise FailedError(f"over {limit:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.perf_counter() - start
        if code:
            errors.seek(0)
            raise FailedError(reason(errors.read(), code))
    return seconds


def reason(text: str, code: int) -> str:
    """Make a note of what a process said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    last = (errors or lines or [f"ended with {code}"])[-1]
    if last.startswith("ModuleNotFoundError"):
        return f"not installed: {last.split(': ', 1)[-1]}"
    return f"fails: {last}"[:LONGEST_NOTE]


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    if not path.exists():
        raise FailedError("encoding gave no file")
    return path.stat().st_size


def compared(tuned: Path, result: Path) -> tuple[str, str]:
    """Compare names, dtypes, shapes and words of two safetensors files. Gives yes or no, and what differs."""
    wanted = read(tuned)
    try:
        found = read(result)
    except (ValueError, KeyError, TypeError):
        return "no", "what comes back is no safetensors file"
    notes = []
    missing, extra = len(set(wanted) - set(found)), len(set(found) - set(wanted))
    if missing or extra:
        notes.append(f"{missing} tensors missing, {extra} too many")
    retyped = words = total = 0
    for name in wanted.keys() & found.keys():
        before, after = wanted[name], found[name]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            retyped += 1
        else:
            words += int(np.count_nonzero(before.words != after.words))
            total += before.words.size
    if retyped:
        notes.append(f"{retyped} tensors of another dtype or shape")
    if words:
        notes.append(f"{words:,} of {total:,} words differ")
    return ("no", "; ".join(notes)) if notes else ("yes", "")
