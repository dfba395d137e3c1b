"""Small tensors ride with large ones in levels where that makes the file smaller, and only there."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.extraction.choose import exact
from tests.tools.models import bits

LAYERS = 4
WIDTH = 1000


def trained(step, bias_step):
    """Large matrices and small biases in bfloat16, moved by little: many changes in matrices, more in biases."""
    rng = np.random.default_rng(1)
    base, tuned = {}, {}
    for layer in range(LAYERS):
        for kind, shape, size, own in (("bias", (WIDTH,), 0.004, bias_step), ("weight", (WIDTH, WIDTH), 0.04, step)):
            before = (rng.standard_normal(shape) * size).astype(ml_dtypes.bfloat16)
            noise = rng.uniform(-0.5, 0.5, shape) * np.abs(before.astype(np.float32)) * 2**-8
            after = before.astype(np.float32) + noise + own * rng.lognormal(0, 1, shape) * rng.choice([-1, 1], shape)
            base[f"{layer}.{kind}"], tuned[f"{layer}.{kind}"] = before, after.astype(ml_dtypes.bfloat16)
    return base, tuned


def codings(diff, kind):
    return {record.coding[0] for name, record in diff.items() if name.endswith(kind)}


def test_biases_ride_with_matrices(monkeypatch):
    base, tuned = trained(8e-6, 8e-6)
    riding = diffpack.extract(base, tuned, profile="smallest")
    assert codings(riding, "weight") == codings(riding, "bias") == {"levels"}
    assert bits(diffpack.load(base, riding)) == bits(tuned)
    monkeypatch.setattr(exact, "with_riders", lambda plans, *_: list(plans))
    apart = diffpack.extract(base, tuned, profile="smallest")
    assert codings(apart, "bias") == {"all"}
    assert riding.nbytes < apart.nbytes - 100


def test_biases_of_which_matrices_tell_nothing_stay_apart():
    base, tuned = trained(8e-6, 3e-3)
    apart = diffpack.extract(base, tuned, profile="smallest")
    assert codings(apart, "weight") == {"levels"}
    assert codings(apart, "bias") == {"all"}
    assert apart.nbytes < diffpack.extract(base, tuned, profile="smallest", positions="levels").nbytes
    assert bits(diffpack.load(base, apart)) == bits(tuned)


@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_without_the_base_nothing_rides(profile, monkeypatch):
    monkeypatch.delattr(exact, "with_riders")
    diffpack.extract(*trained(8e-6, 8e-6), profile=profile)


def test_threads_do_not_change_the_file(tmp_path):
    base, tuned = trained(8e-6, 8e-6)
    files = []
    for threads in (1, 4):
        path = tmp_path / f"{threads}.dpk"
        diffpack.extract(base, tuned, path, profile="smallest", threads=threads).close()
        files.append(path.read_bytes())
    assert files[0] == files[1]
