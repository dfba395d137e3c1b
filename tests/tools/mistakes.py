"""Mistakes on the command line, a folder of files to make them with, and what telling one takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

import diffpack
from tests.tools.models import model, tune, write_safetensors

HEAVY = ("torch", "h5py", "scipy", "transformers", "sklearn", "peft", "rich", "matplotlib")
MOST_SECONDS = 0.3
"""What a mistake may take to be told, the start of Python included: the least of a few runs."""
ROUNDS = 5
RUN = """
import sys, time
from diffpack_cli.main import main
try:
    main()
finally:
    print(*sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
    print("spent", time.process_time(), file=sys.stderr)
"""


class Told(NamedTuple):
    """How a line ended: its exit code, what was told, heavy packages loaded, seconds of the processor and the clock."""

    exit_code: int
    text: str
    loaded: str
    processor: float
    clock: float


def told(what: str, folder: Path) -> Told:
    """Make a mistake in a process of its own."""
    command = [sys.executable, "-c", RUN.replace("{heavy!r}", repr(HEAVY)), *MISTAKES[what].split()]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    clock = time.perf_counter() - start
    *lines, loaded, spent = done.stderr.splitlines()
    return Told(done.returncode, "\n".join(lines), loaded, float(spent.split()[1]), clock)


def fill(folder: Path) -> None:
    """Write the files that the lines name."""
    base, tuned = model(), tune(model())
    for name, arrays in (("base", base), ("tuned", tuned)):
        write_safetensors(folder / f"{name}.safetensors", arrays, {"format": "pt"})
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
    diffpack.extract(folder / "base.safetensors", folder / "tuned.safetensors", folder / "d.dpk").close()
    diffpack.extract(folder / "base.h5", folder / "tuned.h5", folder / "h.dpk").close()
    diffpack.apply(folder / "base.safetensors", folder / "d.dpk", folder / "tuned.bin")
    for name in ("taken.dpk", "taken.h5", "taken.bin", "taken.npz", "old.dpk.checkpoint"):
        (folder / name).write_bytes(b"x")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "t.tsv").write_text("text\tlabel\na\tx\nb\ty\n")
    (folder / "bad.tsv").write_text("text\tlabel\na\n")
    (folder / "one.tsv").write_text("text\tlabel\na\tx\n")
    np.savez(folder / "a.npz", w=np.ones(3))


EXTRACT = "extract --base base.h5 --tuned tuned.h5 -o new.dpk"
TRAIN = "train --model model --train t.tsv --dev t.tsv -o new.dpk"
MISTAKES = {
    "no verb of this name": "distill x",
    "no option of this name": "extract --bas x",
    "nothing given": "extract",
    "a density above 1": f"{EXTRACT} --density 7",
    "a density that is none": f"{EXTRACT} --density some",
    "two selections": f"{EXTRACT} --density 1% --top-k 7",
    "a negative count": f"{EXTRACT} --top-k -7",
    "a threshold that is none": f"{EXTRACT} --threshold nan",
    "a budget that may be two things": f"{EXTRACT} --budget 1.5",
    "a budget in bits": f"{EXTRACT} --budget 1Mb",
    "a budget of nothing known": f"{EXTRACT} --budget ten",
    "a budget and a density": f"{EXTRACT} --budget 1M --density 1%",
    "a budget and an error": f"{EXTRACT} --budget 1M --target-error 0.1",
    "an error above 1": f"{EXTRACT} --target-error 2",
    "importance without a target": f"{EXTRACT} --importance base.h5",
    "a rule of no name": f"{EXTRACT} --rule widest --density 1%",
    "a rule without a density": f"{EXTRACT} --rule smallest",
    "values of no name": f"{EXTRACT} --values f8",
    "positions of no name": f"{EXTRACT} --positions columns",
    "files that do not go together": f"{EXTRACT} --files none --files all",
    "a note twice": f"{EXTRACT} --meta a=b --meta a=c",
    "an output that exists": "extract --base base.h5 --tuned tuned.h5 -o taken.dpk",
    "an output that is an input": "extract --base base.h5 --tuned tuned.h5 -o base.h5 --force",
    "an output without a place": "extract --base base.h5 --tuned tuned.h5 -o no/where.dpk",
    "standard output twice": "extract --base base.h5 --tuned tuned.h5 -o - --json",
    "apply to what exists": "apply --base base.h5 h.dpk -o taken.h5",
    "apply to .bin that exists": "apply --base tuned.bin d.dpk -o taken.bin",
    "apply to no layout": "apply --base base.h5 h.dpk -o out.gguf",
    "apply to standard output": "apply --base base.h5 h.dpk -o -",
    "apply onto the base": "apply --base base.h5 h.dpk -o base.h5 --force",
    "compose to what exists": "compose d.dpk --base base.h5 -o taken.dpk",
    "invert to what exists": "invert d.dpk --base base.h5 -o taken.dpk",
    "rebase to what exists": "rebase d.dpk --onto base.h5 --base base.h5 -o taken.dpk",
    "merge to what exists": "merge d.dpk d.dpk --base base.h5 -o taken.dpk",
    "merge by no method": "merge d.dpk d.dpk --base base.h5 -o new.dpk --method mean",
    "merge by a density of none": "merge d.dpk d.dpk --base base.h5 -o new.dpk --method ties --density 50",
    "stats of standard input twice": "stats - -",
    "convert to what exists": "convert d.dpk -o taken.npz --base base.h5",
    "convert to no format": "convert d.dpk -o out.xyz --base base.h5",
    "convert to hdf5 that exists": "convert d.dpk -o taken.h5 --to hdf5",
    "convert by an option of none": "convert d.dpk -o out.h5 --to hdf5 --set colour=red --base base.h5",
    "convert from two": "convert a.npz a.npz -o new.dpk --base base.h5",
    "convert with a rename where a diff is read": "convert d.dpk -o out.npz --rename a=b --base base.h5",
    "train by no method": f"{TRAIN} --method distil",
    "train at a density above 1": f"{TRAIN} --density 50",
    "train at a density of 0": f"{TRAIN} --density 0",
    "train with an option of another method": f"{TRAIN} --method full --density 1%",
    "train with a learning rate of none": f"{TRAIN} --lr -1",
    "train a whole model no layer deep": f"{TRAIN} --method top-layers --layers 0",
    "train to what exists": f"{TRAIN[:-7]}taken.dpk",
    "train where a run was interrupted": f"{TRAIN[:-7]}old.dpk",
    "train to standard output": f"{TRAIN[:-7]}-",
    "train on a broken file": f"{TRAIN} --train bad.tsv",
    "train on one label": f"{TRAIN} --train one.tsv --dev one.tsv",
}
