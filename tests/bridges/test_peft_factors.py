"""Plain LoRA is stored as factors: those of the adapter, or whole ones as near as asked for; the rest is merged."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.bridges.formats.whole_factors import whole_factors
from diffpack.errors import CorruptFileError, UsageError
from diffpack.format.values.floats import FLOATS
from spec import reader as second_reader
from tests.tools.adapters import BASE, A, B, adapter
from tests.tools.models import bits

RNG = np.random.default_rng(5)
KEYS = ("m.q.lora_A.weight", "m.q.lora_B.weight")
PAIR = dict(zip(KEYS, (A, B), strict=True))


def floats_of(matrix):
    """Left (rows, rank) and right (rank, columns) as they are stored, in float32."""
    coding = FLOATS[matrix.values]
    left, right = (coding.differences(side.reshape(-1)).reshape(side.shape) for side in (matrix.left, matrix.right))
    return left.T, right


@pytest.mark.parametrize(("dtype", "values"), [(np.float32, "f32"), (np.float16, "f16")])
def test_factors_are_those_of_the_adapter_bit_for_bit(tmp_path, dtype, values):
    first, second = A.astype(dtype), B.astype(dtype)
    first[0, 0] = -0.0
    done = diffpack.convert(
        adapter(tmp_path / "a", dict(zip(KEYS, (first, second), strict=True))), tmp_path / "d.dpk", base=BASE
    )
    record = done.diff["m.q.weight"]
    (matrix,) = record.factors.matrices
    left, right = floats_of(matrix)
    assert (matrix.values, float(record.factors.scale)) == (values, 2.0)
    assert right.astype(dtype).tobytes() == first.tobytes()
    assert left.astype(dtype).tobytes() == second.tobytes()
    assert done.diff.manifest.recipe["values"] == "lowrank"
    assert "lowrank" in done.diff.manifest.requires
    merged = diffpack.convert(tmp_path / "a", base=BASE, options={"values": "merged"}).diff
    assert bits(diffpack.load(BASE, done.diff)) == bits(diffpack.load(BASE, merged))
    assert done.diff.manifest.result.fingerprint == merged.manifest.result.fingerprint
    diffpack.verify(done.diff, BASE)


def test_factors_of_two_dtypes_are_widened_and_those_of_float64_merged(tmp_path):
    mixed = adapter(tmp_path / "a", dict(zip(KEYS, (A.astype(np.float16), B), strict=True)))
    (matrix,) = diffpack.convert(mixed, base=BASE).diff["m.q.weight"].factors.matrices
    assert matrix.values == "f32"
    assert floats_of(matrix)[1].tobytes() == A.astype(np.float16).astype(np.float32).tobytes()
    wide = adapter(tmp_path / "w", dict(zip(KEYS, (A.astype(np.float64), B), strict=True)))
    record = diffpack.convert(wide, base=BASE).diff["m.q.weight"]
    assert record.factors is None
    assert record.exact


def test_a_convolution_is_stored_as_the_product_that_it_is(tmp_path):
    base = {"c.weight": RNG.standard_normal((6, 3, 2, 2)).astype(np.float32)}
    first, second = RNG.standard_normal((2, 3, 2, 2)).astype(np.float32), RNG.standard_normal((6, 2, 1, 1))
    tensors = {"c.lora_A.weight": first, "c.lora_B.weight": second.astype(np.float32)}
    done = diffpack.convert(adapter(tmp_path / "a", tensors), base=base)
    factors = done.diff["c.weight"].factors
    assert (factors.rows, factors.columns, factors.rank) == (6, 12, 2)
    expected = base["c.weight"] + 2 * np.einsum("ork,rcij->ocij", second[..., 0], first)
    assert np.allclose(diffpack.load(base, done.diff)["c.weight"], expected, atol=1e-6)


def test_both_readers_give_the_same(tmp_path):
    done = diffpack.convert(adapter(tmp_path / "a", PAIR), tmp_path / "d.dpk", base=BASE)
    found = second_reader.apply(
        second_reader.read((tmp_path / "d.dpk").read_bytes()),
        {name: second_reader.Tensor("F32", array.shape, array.tobytes()) for name, array in BASE.items()},
    )
    ours = diffpack.load(BASE, done.diff)
    assert {name: tensor.data for name, tensor in found.items()} == {name: a.tobytes() for name, a in ours.items()}


@pytest.mark.parametrize("error", [1e-2, 2e-4, 1e-4])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (1, 40), (40, 1)])
@pytest.mark.parametrize("rank", [1, 7])
def test_whole_factors_miss_no_more_than_asked_and_not_much_less(error, shape, rank):
    left = RNG.standard_normal((shape[0], rank)) * np.geomspace(1, 1e-3, rank)
    right = RNG.standard_normal((rank, shape[1]))
    factors = whole_factors(left, right, -0.7, error)
    wanted = -0.7 * (left @ right)
    if factors is None:  # a few large numbers, each of which would have to be beyond int16
        assert min(shape) == 1
        return
    missed = np.linalg.norm(factors.change(0, wanted.size).reshape(shape) - wanted) / np.linalg.norm(wanted)
    assert missed <= error * 1.001
    assert missed >= error / 3 or min(shape) == 1
    assert factors.rank <= rank


def test_whole_factors_are_refused_where_numbers_would_not_fit():
    spike = np.zeros((20000, 1))
    spike[3] = 1.0
    assert whole_factors(spike, np.ones((1, 4)), 1.0, 1e-5) is None
    assert whole_factors(spike * 0, np.ones((1, 4)), 1.0, 1e-3) is None


def test_whole_factors_of_an_adapter(tmp_path):
    base = {"m.q.weight": RNG.standard_normal((96, 64)).astype(np.float32)}
    first, second = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 64), (96, 4)))
    path = adapter(tmp_path / "a", dict(zip(KEYS, (first, second), strict=True)))
    sizes = {}
    for error in ("0.01", "0.0002"):
        done = diffpack.convert(
            path, tmp_path / f"{error}.dpk", base=base, options={"values": "lowrank", "error": error}
        )
        change = diffpack.load(base, done.diff)["m.q.weight"].astype(np.float64) - base["m.q.weight"]
        wanted = second.astype(np.float64) @ first  # lora_alpha 4 of rank 4
        assert np.linalg.norm(change - wanted) <= float(error) * np.linalg.norm(wanted) * 1.01
        assert done.diff["m.q.weight"].factors.values == "int"
        sizes[error] = done.nbytes
    assert sizes["0.01"] < sizes["0.0002"] < (tmp_path / "a" / "adapter_model.safetensors").stat().st_size


def test_what_is_no_product_goes_as_it_did(tmp_path):
    """DoRA, a bias's change, a module saved whole; beside a layer that is one."""
    tensors = {
        **PAIR,
        "m.q.lora_magnitude_vector": np.ones(6, np.float32),
        "m.q.lora_B.bias": np.ones(6, np.float32),
        "m.v.lora_A.weight": B.T.copy(),
        "m.v.lora_B.weight": A.T.copy(),
    }
    done = diffpack.convert(adapter(tmp_path / "a", tensors, use_dora=True), base=BASE)
    assert {name: record.rank for name, record in done.diff.items()} == {
        "m.q.weight": 0, "m.q.bias": 0, "m.v.weight": 2,
    }  # fmt: skip
    merged = diffpack.convert(tmp_path / "a", base=BASE, options={"values": "merged"})
    assert bits(diffpack.load(BASE, done.diff)) == bits(diffpack.load(BASE, merged.diff))
    replaced = adapter(tmp_path / "r", PAIR | {"m.q.base_layer.weight": BASE["m.q.weight"] + 1})
    record = diffpack.convert(replaced, base=BASE).diff["m.q.weight"]
    assert record.factors is None
    same = adapter(tmp_path / "s", PAIR | {"m.q.base_layer.weight": BASE["m.q.weight"]})
    assert diffpack.convert(same, base=BASE).diff["m.q.weight"].rank == 2


def test_a_product_of_nothing_is_left_out_and_told(tmp_path):
    tensors = {**PAIR, "m.v.lora_A.weight": B.T.copy(), "m.v.lora_B.weight": A.T * 0}
    done = diffpack.convert(adapter(tmp_path / "a", tensors), base=BASE)
    assert list(done.diff) == ["m.q.weight"]
    assert done.notes == ("factors whose product is 0 are left out: m.v",)


def test_sums_that_end_are_merged(tmp_path):
    base = {"m.q.weight": np.full((6, 4), 60000, np.float16)}
    path = adapter(tmp_path / "a", {KEYS[0]: np.ones((1, 4), np.float32), KEYS[1]: np.full((6, 1), 4000, np.float32)})
    with pytest.raises(UsageError, match="24 F16 entries, up to 76000"):
        diffpack.convert(path, base=base)  # lora_alpha 4 of rank 1
    clipped = diffpack.convert(path, base=base, clip=True).diff["m.q.weight"]
    assert clipped.factors is None
    near = adapter(tmp_path / "n", {KEYS[0]: np.ones((1, 4), np.float32), KEYS[1]: np.ones((6, 1), np.float32)})
    assert diffpack.convert(near, base=base).diff["m.q.weight"].rank == 1
    with pytest.raises(CorruptFileError, match="not finite"):
        diffpack.convert(adapter(tmp_path / "i", PAIR | {KEYS[0]: A * np.inf}), base=BASE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "dense"}, "values is factors, lowrank or merged, not 'dense'"),
        ({"error": "0.1"}, "error is for values=lowrank"),
        ({"values": "lowrank", "error": "0"}, "error is a number between 0 and 1"),
        ({"values": "lowrank", "error": "x"}, "error is a number between 0 and 1"),
    ],
)
def test_options_that_are_none_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        diffpack.convert(adapter(tmp_path / "a", PAIR), base=BASE, options=options)


@pytest.mark.parametrize("to", ["sparse-safetensors", "sglang-delta"])
def test_formats_of_new_values_hold_the_merged_model(tmp_path, to):
    done = diffpack.convert(adapter(tmp_path / "a", PAIR), base=BASE)
    out = tmp_path / ("p.safetensors" if to == "sparse-safetensors" else "delta")
    assert diffpack.convert(done.diff, out, to=to, base=BASE).exact
    assert bits(diffpack.load(BASE, diffpack.convert(out, base=BASE).diff)) == bits(diffpack.load(BASE, done.diff))


@pytest.mark.parametrize("to", ["hdf5", "scipy"])
def test_other_formats_hold_the_values_that_factors_come_to(tmp_path, to):
    done = diffpack.convert(adapter(tmp_path / "a", PAIR), base=BASE)
    out = tmp_path / ("d.h5" if to == "hdf5" else "m")
    diffpack.convert(done.diff, out, to=to)
    back = diffpack.convert(out, base=BASE).diff
    assert bits(diffpack.load(BASE, back)) == bits(diffpack.load(BASE, done.diff))
    assert back.manifest.result.fingerprint == done.diff.manifest.result.fingerprint
    assert back["m.q.weight"].factors is None
