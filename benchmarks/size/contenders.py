"""Who is measured. Fast ones first: the slow byte tools take minutes a pair."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import diffpack
from diffpack.format.features import PROFILES

ROOT = Path(__file__).parent.parent.parent
OURS = "diffpack"


@dataclass(frozen=True)
class Contender:
    """A tool: the name in the table, the module in `peers` (None: diffpack), the package, and its options."""

    name: str
    module: str | None
    package: str
    options: tuple[str, ...] = ()

    def encode(self, python: Path, base: Path, tuned: Path, out: Path) -> list[str]:
        """Give the command that makes `out`."""
        if self.module is None:
            sides = ["--base", str(base), "--tuned", str(tuned)]
            return [sys.executable, "-m", "diffpack_cli", "extract", *sides, "-o", str(out), *self.options]
        return self._peer(python, "encode", base, tuned, out)

    def decode(self, python: Path, base: Path, out: Path, result: Path) -> list[str]:
        """Give the command that makes `result`."""
        if self.module is None:
            return [sys.executable, "-m", "diffpack_cli", "apply", "--base", str(base), str(out), "-o", str(result)]
        return self._peer(python, "decode", base, out, result)

    def _peer(self, python: Path, verb: str, *paths: Path) -> list[str]:
        assert self.module is not None
        return [str(python), "-m", "benchmarks.size.peers", self.module, verb, *map(str, paths), *self.options]


CONTENDERS = (
    *(Contender(f"{OURS} {profile}", None, OURS, ("--profile", profile)) for profile in PROFILES),
    Contender("COO, zstd-3 (TRL, vLLM)", "coo", "zstandard"),
    Contender("gaps, zstd-1 (NeMo-RL)", "gaps", "zstandard"),
    Contender("XOR planes, zstd-3 (BitX)", "xor_planes", "zstandard"),
    Contender("zipnn delta", "zipnn_delta", "zipnn"),
    Contender("deltatensors", "deltatensors_sparse", "deltatensors"),
    Contender("weightscope", "weightscope_patch", "weightscope"),
    Contender("moonclip", "moonclip_store", "moonclip"),
    Contender("reminis", "reminis_pack", "reminis"),
    Contender("zstd -3 --patch-from", "zstd_patch", "backports.zstd", ("3",)),
    Contender("xdelta3", "xdelta", "pyxdelta"),
    Contender("zstd -19 --patch-from", "zstd_patch", "backports.zstd", ("19",)),
    Contender("HDiffPatch, zstd-19", "hdiff", "hdiffpatch"),
    Contender("bsdiff4", "bsdiff", "bsdiff4"),
)
BUILT_IN = ("coo", "gaps", "xor_planes")
"""Peers written here, which need nothing but numpy and zstandard."""


def versions(python: Path) -> dict[str, str]:
    """Ask the peers' environment which packages it has: name -> name and version."""
    packages = sorted({contender.package for contender in CONTENDERS})
    code = f"""
import importlib.metadata, json
found = {{}}
for name in {packages!r}:
    try:
        found[name] = name + " " + importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
    answer = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found | {OURS: f"{OURS} {diffpack.__version__}"}
