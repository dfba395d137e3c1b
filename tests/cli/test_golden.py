"""What the command line prints, word for word: `golden/NAME.txt` holds commands and what becomes of them.

    $ diffpack inspect task.dpk
    exit 0
    --- standard output
    what was printed there
    --- standard error
    what was printed there

The commands run one after the other in a folder of tiny checkpoints; the exit code is that of the last. A section with
nothing in it is left out, and a text whose last line has no end is followed by the line `\\ no newline at the end`.
What depends on the version of a compressor (sizes, bits, shares of the base) is compared with `#` for its digits.

`DIFFPACK_GOLDEN=write pytest tests/cli/test_golden.py` writes what follows the commands anew; read the change before
you commit it. A new case is a file of its commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import diffpack
from diffpack_cli.main import cli
from tests.tools import ROOT
from tests.tools.low_rank import by_hand
from tests.tools.models import write_safetensors, write_shards

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("DIFFPACK_GOLDEN") == "write"
STDOUT, STDERR, UNENDED = "--- standard output", "--- standard error", "\\ no newline at the end"
MARKS = {STDOUT, STDERR, UNENDED}
WIDE = (  # numbers in text and tables: their digits
    r"(?:(?<=exact  )|(?<=lossy  )|(?<=lossy \d\.\d{4}  )) *(?:[\d.]+|-)(?= +[\d.]+ (?:bytes?|kB))",  # bits a change
    r"(?m)[\d.,]+ (?:bytes?|kB)(?: +[\d.]+ (?:%|x)(?= |$))?",
    r"(?m)^ {21} *[\d.]+ %(?: +[\d.]+ %)*$",  # where the bytes are
    r"[\d.]+ % of",
    r"[\d.]+ bits each",
)
WHOLE = (  # numbers whose length is of no account
    r'"(?:\w*bytes|bits_per_change|share_of_base|weight_share|weight_bits|saved|\w+_multiple|most|used|more)": [\d.]+',
    r"(?<=diffpack )\d+\.\d+\.\d+\w*",
)


def numbers(shape: tuple[int, ...], seed: int, dtype: type = np.float32) -> np.ndarray:
    """Numbers in [-1, 1) that no library's random generator has a say in."""
    count = int(np.prod(shape, dtype=np.int64))
    mixed = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed * 97)) % 65521
    return (mixed.astype(np.float64) / 32760.5 - 1).astype(dtype).reshape(shape)


def base_tensors(seed: int) -> dict[str, np.ndarray]:
    return {
        "bert.embed": numbers((100, 16), seed),
        "bert.layer.0.weight": numbers((48, 32), seed + 1),
        "bert.layer.0.bias": numbers((48,), seed + 2),
        "bert.layer.1.weight": numbers((64, 48), seed + 3, np.float16),
        "bert.ids": np.arange(64, dtype=np.int64),
        "bert.mask": np.ones(16, bool),
    }


def tuned_tensors(base: dict[str, np.ndarray], step: int = 37) -> dict[str, np.ndarray]:
    """Every step-th entry moves; one tensor is gone, one longer, one new, one tied."""
    tuned = {name.removeprefix("bert."): array.copy() for name, array in base.items()}
    for array in tuned.values():
        if array.dtype.kind == "f":
            array.reshape(-1)[::step] *= array.dtype.type(1.01)
    del tuned["mask"]
    tuned["embed"] = np.concatenate([tuned["embed"], numbers((4, 16), 9)])
    tuned["head.weight"] = numbers((3, 48), 8)
    tuned["tied"] = tuned["embed"].copy()
    return tuned


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every case starts from."""
    folder = tmp_path_factory.mktemp("golden")
    base = base_tensors(0)
    tuned = tuned_tensors(base)
    write_safetensors(folder / "base.safetensors", base)
    write_safetensors(folder / "tuned.safetensors", tuned)
    write_safetensors(folder / "other.safetensors", base_tensors(5))
    for name, tensors in {"model": base, "task": tuned}.items():
        names = sorted(tensors)
        shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
        write_shards(folder / name, {shard: {key: tensors[key] for key in keys} for shard, keys in shards.items()})
        (folder / name / "config.json").write_text(f'{{"name": "{name}"}}\n')
        (folder / name / "vocab.txt").write_text("a\nb\n")
    os.remove(shutil.copytree(folder / "model", folder / "short") / "b.safetensors")
    files = (folder / "base.safetensors", folder / "tuned.safetensors")
    whole = diffpack.extract(*files, folder / "exact.dpk", base_name="org/base", base_revision="1f2e", sha256=True)
    diffpack.extract(
        *files, folder / "lossy.dpk", density=0.02, values="f16", metadata={"task": "demo", "bell": "\a\n"}
    )
    factored, _ = by_hand({"a": numbers((20, 16), 20), "b": numbers((16, 16), 21)})
    (folder / "factors.dpk").write_bytes(factored)
    data = (folder / "exact.dpk").read_bytes()
    assert len(data) == whole.nbytes
    (folder / "cut.dpk").write_bytes(data[:-10])
    (folder / "damaged.dpk").write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    (folder / "newer.dpk").write_bytes(data[:8] + b"\x07" + data[9:])
    return folder


def add_keys(folder: Path) -> None:
    """Put keys that ssh-keygen made into a folder, and a list of whom to trust."""
    for key in ("plain", "plain.pub", "locked.pub"):
        shutil.copy(ROOT / "tests" / "oracles" / "signatures" / key, folder)
    (folder / "allowed_signers").write_text(f'a@b.org namespaces="diffpack" {(folder / "plain.pub").read_text()}')


def masked(text: str, folder: Path) -> str:
    text = text.replace(str(folder), "FOLDER")
    for pattern in WIDE:
        text = re.sub(pattern, lambda found: re.sub(r"\d", "#", found[0]), text)
    for pattern in WHOLE:
        text = re.sub(pattern, lambda found: re.sub(r"[\d.]+\w*", "#", found[0]), text)
    return text


def commands(case: str) -> list[str]:
    """The lines at the head of a case that begin with `$ `."""
    return [line.removeprefix("$ ") for line in takewhile(lambda line: line.startswith("$ "), case.split("\n"))]


def written(lines: list[str], code: int, stdout: str, stderr: str) -> str:
    """A case as its file has it."""
    case = "".join(f"$ {line}\n" for line in lines) + f"exit {code}\n"
    for mark, text in ((STDOUT, stdout), (STDERR, stderr)):
        assert MARKS.isdisjoint(text.split("\n"))  # so that a case can be read in one way alone
        if text:
            case += f"{mark}\n{text}" if text.endswith("\n") else f"{mark}\n{text}\n{UNENDED}\n"
    return case


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.txt")))
def test_golden(name: str, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(stage, tmp_path, dirs_exist_ok=True)
    if name.startswith("sign"):
        pytest.importorskip("cryptography")
        add_keys(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # tables are as wide as they are
    path = GOLDEN / f"{name}.txt"
    lines = commands(path.read_bytes().decode())
    stdout = stderr = ""
    code = 0
    for line in lines:
        program, *args = shlex.split(line)
        assert program == "diffpack"
        done = CliRunner().invoke(cli, args)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        stdout, stderr, code = stdout + done.stdout, stderr + done.stderr, done.exit_code
    found = written(lines, code, masked(stdout, tmp_path), masked(stderr, tmp_path))
    if WRITE:
        path.write_bytes(found.encode())
    assert path.read_bytes().decode() == found


def test_every_golden_file_belongs_to_a_command() -> None:
    for path in GOLDEN.iterdir():
        assert path.suffix == ".txt"
        assert commands(path.read_bytes().decode()), path
