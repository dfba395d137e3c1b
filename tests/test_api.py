from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import model, tune

import diffpack
from diffpack import errors

ROOT = Path(__file__).parent.parent


def test_all_is_complete_and_sorted():
    public = {name for name in vars(diffpack) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(diffpack, name)).__name__ == "module"}
    assert diffpack.__all__ == sorted(diffpack.__all__)
    assert public - modules == set(diffpack.__all__) - {"__version__"}
    assert len((ROOT / "diffpack" / "__init__.py").read_text().splitlines()) < 80


def test_every_error_is_drawn_in_the_tree():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, errors.DiffpackError)
            assert name in (errors.__doc__ or "")
            drawn = re.search(rf"{name}\b.*exit (\d+)", errors.__doc__ or "")
            assert drawn, name
            assert int(drawn[1]) == kind.exit_code


def test_a_diff_is_a_lazy_mapping():
    diff = diffpack.extract(model(), tune(model(), 0.05))
    assert list(diff) == sorted(diff)
    assert "nothing" not in diff
    record = diff["encoder.0.weight"]
    dense = record.to_dense()
    sparse = record.to_scipy()
    assert dense.shape == (48, 32)
    assert sparse.shape == (48, 32)
    assert np.array_equal(sparse.toarray(), dense)
    assert np.array_equal(np.flatnonzero(dense), record.positions)
    assert diff["encoder.0.bias"].to_scipy().shape == (1, 48)
    packed = diffpack.open(ROOT / "fixtures" / "v1.1" / "levels-dtypes.dpk")["packed"]  # 3 x 5 entries of 4 bits
    assert packed.to_scipy().shape == (1, 8)
    assert packed.to_scipy().nnz == packed.count == 8
    with pytest.raises(KeyError):
        diff["nothing"]


def test_saved_and_opened_again(tmp_path):
    diff = diffpack.extract(model(), tune(model()), metadata={"task": "x"}, base_name="b", base_revision="r")
    diff.save(tmp_path / "d.dpk")
    with pytest.raises(errors.UsageError):
        diff.save(tmp_path / "d.dpk")
    with diffpack.open(tmp_path / "d.dpk") as opened:
        assert opened.metadata == {"task": "x"}
        assert (opened.manifest.base.name, opened.manifest.base.revision) == ("b", "r")
        assert np.array_equal(opened["embed"].values, diff["embed"].values)
    assert diffpack.open((tmp_path / "d.dpk").read_bytes()).nbytes == diff.nbytes


def test_torch_tensors_in_and_out():
    torch = pytest.importorskip("torch")
    base = {"w": torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).bfloat16(), "n": torch.tensor(3)}
    tuned = {"w": base["w"].clone(), "n": base["n"]}
    tuned["w"][3, ::2] += 1
    diff = diffpack.extract(base, tuned)
    restored = diffpack.load(base, diff, framework="torch")
    assert torch.equal(restored["w"], tuned["w"])
    assert restored["w"].dtype == torch.bfloat16
    restored["w"][0, 0] = 5  # writable, and not the base's memory
    assert base["w"][0, 0] != 5


def test_stats_count_changes_and_bytes():
    base, tuned = model(), tune(model(), 0.05)
    diffs = [diffpack.extract(base, tuned), diffpack.extract(base, tune(base, 0.9, 7))]
    found = diffpack.stats(diffs, base)
    first = found.diffs[0]
    changed = sum(int((np.asarray(base[name]) != tuned[name]).sum()) for name in base)
    assert first.changed == changed
    assert sum(item.changed for item in first.tensors) == changed
    assert found.nbytes == sum(diff.nbytes for diff in diffs)
    assert found.base_bytes == first.base_bytes == sum(array.nbytes for array in base.values())
    with pytest.raises(errors.WrongBaseError):
        diffpack.stats(diffs, tuned)


def test_a_file_names_the_oldest_format_that_has_all_it_uses():
    assert diffpack.extract(model(), tune(model())).version == (1, 0)
    assert diffpack.extract(model(), tune(model()), positions="levels").version == (1, 1)
    assert diffpack.open(ROOT / "fixtures" / "v1.1" / "unsealed.dpk").version == (1, 1)


def test_an_unsealed_diff_is_applied_and_says_what_it_arrived_at(tmp_path):
    folder = ROOT / "fixtures" / "v1.1"
    base, diff = folder / "unsealed.base.safetensors", folder / "unsealed.dpk"
    applied = diffpack.apply(base, diff, tmp_path / "out.safetensors")
    expected = diffpack.fingerprint(folder / "unsealed.result.safetensors")
    assert (applied.sealed, applied.fingerprint, applied.exact) == (False, expected, False)
    verified = diffpack.verify(diff, base)
    assert (verified.sealed, verified.result) == (False, expected)
    with pytest.raises(errors.WrongBaseError):
        diffpack.apply(tune(diffpack.load(base, diff), 1.0), diff, tmp_path / "other.safetensors")
