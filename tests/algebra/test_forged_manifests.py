"""A manifest that speaks of tensors its base has not is refused by every verb, in an error of the library's."""

from __future__ import annotations

import contextlib

import pytest

import diffpack
from diffpack.errors import DiffpackError
from tests.tools.forged import forged
from tests.tools.models import model, tune

GONE = {"shape": [4], "swapped": False, "pieces": [["gone", False, 0, 4]]}
LIES = {
    "alias": lambda manifest: manifest["aliases"].update(more="gone"),
    "aliases of each other": lambda manifest: manifest["aliases"].update(more="other", other="more"),
    "rename": lambda manifest: manifest["rename"].append(["em", "more"]),
    "removed": lambda manifest: manifest["removed"].append("gone"),
    "copies": lambda manifest: (manifest.update(copies={"more": "gone"}), manifest["requires"].append("copies")),
    "slices": lambda manifest: (manifest.update(slices={"more": GONE}), manifest["requires"].append("slices")),
}
VERBS = {
    "merge": lambda diff, true, base: diffpack.merge([diff, true], base=base),
    "compose": lambda diff, true, base: diffpack.compose([diff], base=base),
    "invert": lambda diff, true, base: diffpack.invert(diff, base=base),
    "rename": lambda diff, true, base: diffpack.rename(diff, [("em", "q")], base=base),
    "rebase": lambda diff, true, base: diffpack.rebase(diff, model(), base=base),
}


@pytest.mark.parametrize("values", [None, "f32"])
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("verb", VERBS)
def test_it_is_refused(tmp_path, values, lie, verb):
    base = model()
    options = {} if values is None else {"values": values}
    true = diffpack.extract(base, tune(base, 0.3), tmp_path / "t.dpk", **options)
    data = forged((tmp_path / "t.dpk").read_bytes(), LIES[lie])
    with pytest.raises(DiffpackError) as caught:
        VERBS[verb](data, true, base)
    assert not isinstance(caught.value, KeyError | IndexError)
    with contextlib.suppress(DiffpackError):
        VERBS[verb](data, true, None)  # without the base it may not be seen
