"""Every writing verb killed at random instants: its output is the whole old one, the whole new one, or none.

    make crash, or python -m benchmarks.crash [--kills 1000] [--seed 0] [--results FILE]

A process that runs the verb on the command line's own way is killed (SIGKILL) somewhere between its start and its usual
end, half of the time over an old output with --force. Then the output is compared with what the verb makes when nobody
kills it, byte for byte, and with the old one; then the verb runs again into the same folder, must make the new output,
and must leave nothing else there. Processes are forked from one that has everything loaded: starting Python takes
longer than the work. `train`, which takes minutes and ends in the `extract` of these lines, is not among them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py  # noqa: F401 - loaded before processes are forked, as all is that a verb has used once
import numpy as np

import diffpack
from diffpack_cli.main import cli
from tests.tools.killed import ended, fork, leftovers
from tests.tools.models import Arrays, write_safetensors, write_shards
from tests.tools.signed import FROZEN

KILLS = 1000
_LATEST = 1.1  # of the usual duration: some runs end before they are killed, and do not count
_TIMED = 3  # runs, of which the longest is the usual duration
_TENSORS, _WIDTH = 8, 192  # about 1 MB: large enough to be met while it is written
_MOST_TRIES = 50  # to meet a run before its end


@dataclass(frozen=True)
class Verb:
    """A command line without its output; {v} is a or b, for two different outputs."""

    name: str
    output: str
    args: str

    def line(self, variant: str) -> list[str]:
        return [*self.args.format(v=variant).split(), "-o", self.output, "--force"]


VERBS = (
    Verb("extract", "out.dpk", "extract --base base.safetensors --tuned {v}.safetensors"),
    Verb("extract, lossy", "out.dpk", "extract --base base.safetensors --tuned {v}.safetensors --density 0.1"),
    Verb("apply to .safetensors", "out.safetensors", "apply --base base.safetensors {v}.dpk"),
    Verb("apply to a folder of shards", "out", "apply --base base {v}_folder.dpk"),
    Verb("apply to .bin", "out.bin", "apply --base base.safetensors {v}.dpk"),
    Verb("apply to .h5", "out.h5", "apply --base base.safetensors {v}.dpk"),
    Verb("compose", "out.dpk", "compose {v}.dpk {v}_next.dpk"),
    Verb("invert", "out.dpk", "invert {v}.dpk"),
    Verb("merge", "out.dpk", "merge {v}.dpk other.dpk --base base.safetensors"),
    Verb("rebase", "out.dpk", "rebase {v}.dpk --base base.safetensors --onto other.safetensors"),
    Verb("rename", "out.dpk", "rename {v}.dpk --rename =m. --base base.safetensors"),
    Verb("convert to hdf5", "out.h5", "convert {v}.dpk other.dpk --to hdf5"),
    Verb("convert to scipy", "out", "convert {v}.dpk --to scipy"),
    Verb("convert to sglang-delta", "out", "convert {v}.dpk --to sglang-delta --base base.safetensors"),
    Verb("convert to peft-shira", "out", "convert {v}_floats.dpk --to peft-shira --base base.safetensors"),
    Verb("convert to sparse-safetensors", "out.safetensors", "convert {v}.dpk --base base.safetensors"),
    Verb("convert from sparse-safetensors", "out.dpk", "convert {v}_patch.safetensors --base base.safetensors"),
    Verb("sign", "out.sig", "sign {v}.dpk --key key"),
)


@dataclass
class Count:
    """What was found of one verb: outputs after kills by what they were, and names that should not be there."""

    outputs: Counter[str] = field(default_factory=Counter)
    left: int = 0
    left_after: int = 0
    failed: int = 0

    @property
    def kills(self) -> int:
        return self.outputs.total()

    @property
    def wrong(self) -> int:
        return self.outputs["missing"] + self.outputs["half"] + self.failed

    def told(self) -> str:
        found = self.outputs
        return (
            f"{self.kills:5} kills: {found['old']:4} old, {found['new']:4} new, {found['none']:4} none; "
            f"{found['missing'] + found['half']} missing or half; "
            f"leftovers: {self.left} after the kill, {self.left_after} after the next run"
        )

    def add(self, other: Count) -> None:
        self.outputs += other.outputs
        self.left += other.left
        self.left_after += other.left_after
        self.failed += other.failed


def make_material() -> None:
    """Write the models and diffs that the verbs work on, into the current folder."""
    rng = np.random.default_rng(0)
    names = [f"layer{at}.weight" for at in range(_TENSORS)]
    base = {name: rng.standard_normal((_WIDTH, _WIDTH)).astype(np.float32) for name in names}
    models = {"base": base, "other": _moved(base, rng, 0.5)}
    for variant in "ab":
        models[variant] = _moved(base, rng, 0.02)
        models[f"{variant}_next"] = _moved(models[variant], rng, 0.02)
    for name, arrays in models.items():
        write_safetensors(Path(f"{name}.safetensors"), arrays)
        halves = {f"model-{at}.safetensors": {key: arrays[key] for key in names[at::2]} for at in range(2)}
        write_shards(Path(name), halves)
        (Path(name) / "config.json").write_text(f'{{"of": "{name}"}}')
    diffpack.extract("base.safetensors", "other.safetensors", "other.dpk").close()
    shutil.copy(FROZEN / "plain", "key")
    for variant in "ab":
        tuned = f"{variant}.safetensors"
        diffpack.extract("base.safetensors", tuned, f"{variant}.dpk").close()
        diffpack.extract("base.safetensors", tuned, f"{variant}_floats.dpk", values="f32").close()
        diffpack.extract(tuned, f"{variant}_next.safetensors", f"{variant}_next.dpk").close()
        diffpack.extract("base", variant, f"{variant}_folder.dpk").close()
        diffpack.convert(f"{variant}.dpk", f"{variant}_patch.safetensors", base="base.safetensors")


def _moved(arrays: Arrays, rng: np.random.Generator, density: float) -> Arrays:
    changed = {name: rng.random(array.shape) < density for name, array in arrays.items()}
    return {
        name: np.where(changed[name], array + rng.normal(0, 0.01, array.shape), array).astype(np.float32)
        for name, array in arrays.items()
    }


def content(path: Path) -> str | None:
    """The digest of a file, or of all that a folder holds; None if there is nothing."""
    if not os.path.lexists(path):
        return None
    digest = hashlib.sha256()
    for item in [path, *sorted(path.rglob("*"))]:
        digest.update(f"{item.relative_to(path)}\0{item.is_dir()}\0".encode())
        if item.is_file():
            digest.update(hashlib.sha256(item.read_bytes()).digest())
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_verb(args: Sequence[str]) -> None:
    """Run the command line in this process. Raises `RuntimeError` with what it says if it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(list(args))
        except SystemExit as end:
            failed = bool(end.code)
    if failed:
        raise RuntimeError(f"diffpack {' '.join(args)}: {said.getvalue()}")


class Crashes:
    """The kills of one verb, in a folder of its own inside the current one."""

    def __init__(self, verb: Verb, rng: random.Random) -> None:
        self.verb = verb
        self.rng = rng
        self.folder = Path("outputs")
        self.kept = Path("kept")
        for folder in (self.folder, self.kept):
            remove(folder)
            folder.mkdir()
        self.output = self.folder / verb.output
        self.old = self._made("b")
        os.rename(self.output, self.kept / verb.output)
        self.new = self._made("a")
        assert self.old != self.new
        self.seconds = {old: max(self._timed(old) for _ in range(_TIMED)) for old in (False, True)}

    def line(self, variant: str) -> list[str]:
        """The command line that writes a variant."""
        line = self.verb.line(variant)
        line[line.index("-o") + 1] = str(self.output)
        return line

    def _made(self, variant: str) -> str:
        """Make an output where nothing is; give its content."""
        remove(self.output)
        run_verb(self.line(variant))
        made = content(self.output)
        assert made is not None
        return made

    def prepare(self, old: bool) -> None:
        """Lay out what is there before a run: the old output, or none."""
        remove(self.output)
        if old:
            kept = self.kept / self.verb.output
            copy = shutil.copytree if kept.is_dir() else shutil.copyfile
            copy(kept, self.output)

    def _timed(self, old: bool) -> float:
        self.prepare(old)
        start = time.perf_counter()
        ended(fork(partial(run_verb, self.line("a"))))
        return time.perf_counter() - start

    def kill(self, count: Count) -> None:
        """Kill one run, look at what it left, and run the verb again."""
        old = bool(self.rng.randrange(2))
        for attempt in range(_MOST_TRIES):
            self.prepare(old)
            child = fork(partial(run_verb, self.line("a")))
            latest = _LATEST * self.seconds[old] * 0.8**attempt  # earlier, where runs are faster than the one timed
            time.sleep(self.rng.uniform(0, latest))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            if ended(child) == -signal.SIGKILL:
                break
        else:
            raise RuntimeError(f"{self.verb.name}: always ended before it was killed")
        count.outputs[self.found(old)] += 1
        count.left += bool(leftovers(self.folder))
        failed = ended(fork(partial(run_verb, self.line("a"))))
        count.failed += bool(failed or content(self.output) != self.new)
        count.left_after += os.listdir(self.folder) != [self.verb.output]
        for name in os.listdir(self.folder):
            remove(self.folder / name)

    def found(self, old: bool) -> str:
        """What the output is: the `new` one, the `old` one, `none`, `half` of one, or `missing` where one was."""
        found = content(self.output)
        if found is None:
            return "missing" if old else "none"
        return "new" if found == self.new else "old" if old and found == self.old else "half"


def measure(kills: int, seed: int, work: Path, verbs: Sequence[Verb] = VERBS) -> dict[str, Count]:
    """Kill so many runs in all, in an empty folder; give what was found of each verb."""
    rng = random.Random(seed)
    found = {}
    with contextlib.chdir(work):
        make_material()
        for at, verb in enumerate(verbs):
            crashes, count = Crashes(verb, rng), Count()
            for _ in range(kills * (at + 1) // len(verbs) - kills * at // len(verbs)):
                crashes.kill(count)
            found[verb.name] = count
            print(f"{verb.name:32}{count.told()}", file=sys.stderr, flush=True)
    return found


def report(found: dict[str, Count]) -> tuple[str, bool]:
    """A line for each verb and one for all; whether all is as it must be."""
    total = Count()
    for count in found.values():
        total.add(count)
    lines = [f"{name:32}{count.told()}" for name, count in [*found.items(), ("all", total)]]
    return "\n".join(lines) + "\n", not total.wrong and not total.left_after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="the file the lines are written to")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        text, right = report(measure(options.kills, options.seed, Path(work)))
    head = f"make crash, {os.cpu_count()} cores, seed {options.seed}, {time.perf_counter() - start:.0f} s:\n"
    print(head + text, end="")
    if options.results is not None:
        options.results.write_text(head + text)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
