"""Every writing verb stopped by signals at random instants: one clean exit, one line, nothing left behind.

    make signals, or python -m benchmarks.signals [--runs 1000] [--seed 0] [--results FILE]

A process of its own runs a verb, half of the time over an old output with --force. It gets one of SIGINT, SIGTERM and
SIGHUP, half of the time several of them, at an instant anywhere in its life, a quarter of the time in its first 50 ms.
Then it must have ended

- by 128 + a signal that it got, with the one line that names this signal, or
- by the signal itself, without a word: before diffpack listens, or when all is done; a shell shows the same code, or
- by 0, where it was all but done,

its output must be the whole old one, the whole new one or none, and nothing else may be left: beside it, or in the
folder for temporary files. While Python itself starts, Ctrl-C gets Python's own answer (a traceback and code 1, or
nothing follows), which no program in Python can change: such runs are counted apart, and others done for them, as for
those that ended before their signal came.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.crash import VERBS as KILLED
from benchmarks.crash import Crashes, Verb, make_material, remove
from diffpack.checkpoints import open_checkpoint
from diffpack.checkpoints.torch_writer import ShardedTorchWriter

RUNS = 1000
PROGRAM = [sys.executable, "-m", "diffpack_cli"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EARLY, _EARLY_PART = 0.05, 0.25  # seconds, and how many of the runs get their first signal in them
_LATEST = 1.02  # of the usual duration: a few end before
_SHORTER = 0.97  # the usual duration, after a run that ended before its signal
_GAPS = (0, 0.0002, 0.001, 0.005, 0.02)  # seconds between the signals of a storm
_MOST_SIGNALS = 5
_HANGS = 60  # seconds after which a run that was told to stop never will
_TIMED = 3  # runs, of which the shortest is the usual duration
_STARTING = re.compile(
    r"Fatal Python error: init_|(Traceback |Exception ignored in: )(.*\n)+KeyboardInterrupt(: )?\n\Z"
)
"""What Python says where Ctrl-C meets it before a program does: diffpack's first line ends its KeyboardInterrupt."""
_OWN = re.compile(r'File "[^"]*[/\\](diffpack|diffpack_cli|cli)[/\\](?!__main__)')
"""In a traceback: a line of diffpack's own, but that which loads the first of them."""

VERBS = (
    *KILLED,
    Verb("apply to .npz", "out.npz", "apply --base base.safetensors {v}.dpk"),
    Verb("apply to a folder of torch shards", "out", "apply --base base_torch {v}.dpk --no-files"),
)


@dataclass
class Count:
    """What was found of one verb: how its runs ended, and what was wrong with them."""

    ends: Counter[str] = field(default_factory=Counter)
    signals: int = 0
    codes: int = 0
    words: int = 0
    halves: int = 0
    left: int = 0

    @property
    def runs(self) -> int:
        return self.ends.total() - self.ends["python"] - self.ends["before"]

    @property
    def wrong(self) -> int:
        return self.codes + self.words + self.halves + self.left

    def told(self) -> str:
        ends = self.ends
        return (
            f"{self.runs:5} runs, {self.signals:5} signals: {ends['told']:4} told, {ends['at once']:4} at once, "
            f"{ends['done']:4} done; {self.codes} wrong codes, {self.words} wrong words, {self.halves} half outputs, "
            f"{self.left} leftovers ({ends['python']} while Python started)"
        )

    def add(self, other: Count) -> None:
        self.ends += other.ends
        for name in ("signals", "codes", "words", "halves", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def make_torch_shards(folder: Path, source: Path) -> None:
    """Write a checkpoint as the shards of a PyTorch model."""
    checkpoint = open_checkpoint(source)
    names = list(checkpoint.tensors)
    folder.mkdir()
    shards = {f"pytorch_model-{at + 1:05}-of-00002.bin": names[at::2] for at in range(2)}
    writer = ShardedTorchWriter(folder, shards, checkpoint.tensors)
    for name in names:
        writer.write(name, 0, np.asarray(checkpoint.words(name)))
    writer.publish()


def how_it_ended(code: int, said: str, sent: Sequence[int]) -> tuple[str, str]:
    """How a run ended that got these signals ("told", "at once", "done", "python"), and what is wrong with that.

    That is "codes", "words" or nothing.
    """
    starting = signal.SIGINT in sent and _STARTING.match(said) and not _OWN.search(said)
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("diffpack: error: ")]
    if starting and (code in (0, 1) or -code in sent):
        return "python", ""
    if code == 0:
        return "done", "words" if errors or "Traceback" in said else ""
    if -code in sent or code - 128 in sent:
        name = signal.Signals(-code if code < 0 else code - 128).name
        if code < 0:
            return "at once", "words" if errors or "Traceback" in said else ""
        line = rf"diffpack: error: stopped by {name}( \(.* is written\))?"
        one = len(errors) == 1 and re.fullmatch(line, lines[-1]) is not None and "Traceback" not in said
        return "told", "" if one else "words"
    return "told", "codes"


class Storms:
    """The runs of one verb, in a folder of its own inside the current one."""

    def __init__(self, verb: Verb, rng: random.Random) -> None:
        self.made = Crashes(verb, rng)
        self.rng = rng
        self.scratch = Path("scratch")
        remove(self.scratch)
        self.scratch.mkdir()
        self.seconds = min(self._timed() for _ in range(_TIMED))

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *self.made.line("a")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": str(self.scratch.absolute())},
        )  # fmt: skip

    def _timed(self) -> float:
        self.made.prepare(old=False)
        start = time.perf_counter()
        process = self._start()
        said = process.communicate()[1]
        if process.returncode:
            raise RuntimeError(f"{self.made.verb.name}: {said}")
        return time.perf_counter() - start

    def stop(self, count: Count) -> str:
        """Stop one run and look at what it left; give what was wrong, for people."""
        old = bool(self.rng.randrange(2))
        self.made.prepare(old)
        early = self.rng.random() < _EARLY_PART
        wait = self.rng.uniform(0, _EARLY if early else _LATEST * self.seconds)
        wanted = [self.rng.choice(SIGNALS) for _ in range(self.rng.choice((1, self.rng.randint(2, _MOST_SIGNALS))))]
        process = self._start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)  # its output is far less than a pipe holds
        sent: list[int] = []
        for each in wanted:
            if process.poll() is None:
                sent.append(each)
                process.send_signal(each)
                time.sleep(self.rng.choice(_GAPS))
        try:
            said = process.communicate(timeout=_HANGS)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"{process.communicate()[1]}\n(it did not stop)"
        end, wrong = how_it_ended(process.returncode, said, sent)
        if not sent and not wrong:
            end = "before"
            self.seconds *= _SHORTER  # the machine is faster than when it was timed
        count.ends[end] += 1
        count.signals += len(sent) if end != "python" else 0
        what = {wrong: f"code {process.returncode}, said {said!r}"} if wrong else {}
        found = self.made.found(old)
        if found in ("half", "missing") or (process.returncode == 0 and found != "new"):
            what["halves"] = f"code {process.returncode}, output {found}"
        left = [*({*os.listdir(self.made.folder)} - {self.made.verb.output}), *os.listdir(self.scratch)]
        if left:
            what["left"] = f"code {process.returncode}, left {left}"
        for kind in what:
            setattr(count, kind, getattr(count, kind) + 1)
        for folder in (self.made.folder, self.scratch):
            for name in os.listdir(folder):
                remove(folder / name)
        names = " ".join(signal.Signals(each).name for each in sent)
        return "; ".join(f"{names or 'none'} after {wait:.3f} s: {text}" for text in what.values())


def measure(runs: int, seed: int, work: Path, verbs: Sequence[Verb] = VERBS) -> dict[str, Count]:
    """Stop so many runs in all, in an empty folder; give what was found of each verb."""
    rng = random.Random(seed)
    found = {}
    for each in SIGNALS:  # a shell lets what it runs in the background ignore some, and all that begins there
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    with contextlib.chdir(work):
        make_material()
        make_torch_shards(Path("base_torch"), Path("base.safetensors"))
        for at, verb in enumerate(verbs):
            storms, count = Storms(verb, rng), Count()
            while count.runs < runs * (at + 1) // len(verbs) - runs * at // len(verbs):
                if wrong := storms.stop(count):
                    print(f"{verb.name}: {wrong}", file=sys.stderr, flush=True)
            found[verb.name] = count
            print(f"{verb.name:34}{count.told()}", file=sys.stderr, flush=True)
    return found


def report(found: dict[str, Count]) -> tuple[str, bool]:
    """A line for each verb and one for all; whether all is as it must be."""
    total = Count()
    for count in found.values():
        total.add(count)
    lines = [f"{name:34}{count.told()}" for name, count in [*found.items(), ("all", total)]]
    return "\n".join(lines) + "\n", not total.wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="the file the lines are written to")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        text, right = report(measure(options.runs, options.seed, Path(work)))
    head = f"make signals, {os.cpu_count()} cores, seed {options.seed}, {time.perf_counter() - start:.0f} s:\n"
    print(head + text, end="")
    if options.results is not None:
        options.results.write_text(head + text)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
