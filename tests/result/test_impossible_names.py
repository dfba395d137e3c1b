"""Names that no file can have are told as what they are, whoever is given them, for reading and for writing."""

from __future__ import annotations

import pytest

import diffpack
from diffpack.errors import DiffpackError, UsageError
from tests.tools.models import model, tune

NAMES = {"long": "x" * 300, "endless": "x" * 1_000_000, "deep": "a/" * 3000 + "x", "nul": "a\0b"}
READERS = {
    "a checkpoint": lambda name, base, diff: diffpack.open_checkpoint(name),
    "a base": lambda name, base, diff: diffpack.load(name, diff),
    "a diff": lambda name, base, diff: diffpack.open(name),
    "a diff to verify": lambda name, base, diff: diffpack.verify(name),
    "a diff to count": lambda name, base, diff: diffpack.stats(name),
    "diffs to merge": lambda name, base, diff: diffpack.merge([diff, name]),
    "a source": lambda name, base, diff: diffpack.convert(name, base=base),
}
WRITERS = {
    "a diff": lambda name, base, diff: diffpack.compose([diff], f"{name}.dpk"),
    "a file": lambda name, base, diff: diffpack.apply(base, diff, f"{name}.safetensors"),
    "a folder": lambda name, base, diff: diffpack.apply(base, diff, name),
    "an export": lambda name, base, diff: diffpack.convert(diff, name, to="scipy", base=base),
}


@pytest.fixture
def made():
    base = model()
    return base, diffpack.extract(base, tune(base))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", READERS)
def test_reading(made, name, what):
    with pytest.raises(DiffpackError) as caught:
        READERS[what](NAMES[name], *made)
    assert len(str(caught.value)) < 3000
    assert NAMES[name][:1] in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", WRITERS)
def test_writing(made, name, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no file can be called so: (File name too long|embedded null)"):
        WRITERS[what](NAMES[name], *made)
    assert not list(tmp_path.iterdir())
