"""The delta directory of slime and SGLang: both encodings, every checksum, and hostile frames."""

from __future__ import annotations

import json
import zlib

import ml_dtypes
import numpy as np
import pytest
import zstandard
from blake3 import blake3

import diffpack
from diffpack.bridges.formats.sglang_delta import INDEX
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UsageError, WrongBaseError
from tests.tools.models import bits, model, tune, write_safetensors

SHARD = "model-00000-of-00001.safetensors"


def sums(kind, data):
    if kind == "xxh3-128":
        return pytest.importorskip("xxhash").xxh3_128(data).hexdigest()
    return blake3(data).hexdigest() if kind == "blake3" else f"{zlib.adler32(data):08x}"


def overwrite(old, new):
    """As slime encodes: a count, positions, values; of bytes."""
    changed = np.flatnonzero(old != new).astype("<u4")
    return np.array([changed.size], "<u4").tobytes() + changed.tobytes() + new[changed].tobytes()


def published(folder, base, tuned, encoding, kind="blake3", **metadata):
    """As a trainer publishes."""
    folder.mkdir()
    frames, checksums = {}, {}
    for name, array in base.items():
        old, new = (np.frombuffer(item[name].tobytes(), np.uint8) for item in (base, tuned))
        if np.array_equal(old, new):
            continue
        plain = (old ^ new).tobytes() if encoding == "xor" else overwrite(old, new)
        frames[name] = np.frombuffer(zstandard.ZstdCompressor(level=1).compress(plain), np.uint8)
        checksums[name] = sums(kind, new.tobytes())
        assert array.shape == tuned[name].shape
    write_safetensors(folder / SHARD, frames, checksums)
    index = {
        "metadata": {
            "version": "000003", "base_version": "000002", "delta_encoding": encoding, "compression_format": "zstd",
            "checksum_format": kind, **metadata,
        },
        "weight_map": dict.fromkeys(frames, SHARD),
    }  # fmt: skip
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def applied(folder, base):
    """As SGLang's receiver applies a version, written anew from the layout."""
    index = json.loads((folder / INDEX).read_text())
    kind, encoding = index["metadata"]["checksum_format"], index["metadata"]["delta_encoding"]
    result = {name: np.array(array) for name, array in base.items()}
    for shard in set(index["weight_map"].values()):
        opened = SafetensorsCheckpoint(folder / shard)
        assert {name for name, home in index["weight_map"].items() if home == shard} == set(opened.tensors)
        for name in opened.tensors:
            raw = np.frombuffer(result[name].tobytes(), np.uint8).copy()
            plain = np.frombuffer(zstandard.ZstdDecompressor().decompress(opened.words(name).tobytes()), np.uint8)
            if encoding == "xor":
                raw ^= plain
            else:
                count = int(plain[:4].view("<u4")[0])
                raw[plain[4 : 4 + 4 * count].view("<u4")] = plain[4 + 4 * count :]
            assert sums(kind, raw.tobytes()) == opened.header.metadata[name]
            result[name] = raw.view(result[name].dtype).reshape(result[name].shape)
    return result


def pair():
    base = model() | {"half": np.linspace(-1, 1, 64).astype(ml_dtypes.bfloat16)}
    tuned = tune(base, 0.05)
    tuned["half"][3], tuned["ids"] = np.nan, base["ids"] + (np.arange(64) == 5)
    tuned["mask"] = ~base["mask"]
    return base, tuned


@pytest.mark.parametrize("kind", ["blake3", "xxh3-128", "adler32"])
@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_there_and_back(tmp_path, encoding, kind):
    base, tuned = pair()
    folder = published(tmp_path / "weight_v000003", base, tuned, encoding, kind)
    done = diffpack.convert(folder, tmp_path / "d.dpk", base=base)
    assert (done.format, done.exact) == ("sglang-delta", True)
    assert done.diff.manifest.recipe["base_version"] == "000002"
    assert bits(diffpack.load(base, tmp_path / "d.dpk")) == bits(tuned)
    options = {"encoding": encoding, "checksum": kind, "version": "3"}
    assert diffpack.convert(tmp_path / "d.dpk", tmp_path / "out", to="sglang-delta", base=base, options=options).exact
    assert bits(applied(tmp_path / "out", base)) == bits(tuned)
    written, read = (json.loads((path / INDEX).read_text()) for path in (tmp_path / "out", folder))
    assert written == read


def test_an_update_without_changes(tmp_path):
    base, _ = pair()
    diffpack.convert(diffpack.extract(base, base), tmp_path / "out", to="sglang-delta", base=base)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [INDEX]
    done = diffpack.convert(tmp_path / "out", base=base)
    assert done.exact
    assert not len(done.diff)


def test_a_delta_applied_to_its_own_result_is_refused(tmp_path):
    base, tuned = pair()
    for encoding in ("xor", "overwrite"):
        folder = published(tmp_path / encoding, base, tuned, encoding)
        if encoding == "xor":  # overwriting twice gives the same bytes; the version tells
            with pytest.raises(WrongBaseError, match="checksum"):
                diffpack.convert(folder, base=tuned)
        with pytest.raises(WrongBaseError, match="builds on version 000002"):
            diffpack.convert(folder, base=tuned, options={"base_version": "3"})
        assert diffpack.convert(folder, base=base, options={"base_version": "2"}).exact


def frame(tmp_path, base, plain, encoding="xor", **compressor):
    folder = published(tmp_path / "bad", base, base | {"half": -base["half"]}, encoding)
    data = plain if compressor.get("raw") else zstandard.ZstdCompressor().compress(plain)
    write_safetensors(folder / SHARD, {"half": np.frombuffer(data, np.uint8)}, {"half": "0"})
    return folder


@pytest.mark.parametrize(
    ("plain", "encoding", "message"),
    [
        (bytes(1 << 24), "xor", "a zstd frame of 16777216 bytes"),
        (bytes(1 << 24), "overwrite", "a zstd frame of 16777216 bytes"),
        (bytes(127), "xor", "127 bytes"),
        (b"\x02\0\0\0" + bytes(8), "overwrite", "12 bytes for 2 changed ones"),
        (b"\x01\0\0\0" + b"\x80\0\0\0" + b"\x07", "overwrite", "128 is outside its 128"),
        (b"\x02\0\0\0" + bytes(8) + b"\x07\x08", "overwrite", "twice"),
        (b"\xff\xff\xff\xff" + bytes(9), "overwrite", "changed ones"),
    ],
)
def test_hostile_frames_are_refused(tmp_path, plain, encoding, message):
    base, _ = pair()
    with pytest.raises(CorruptFileError, match=message):
        diffpack.convert(frame(tmp_path, base, plain, encoding), tmp_path / "x.dpk", base=base)
    assert not (tmp_path / "x.dpk").exists()


def test_frames_that_do_not_say_their_size_or_are_none(tmp_path):
    base, _ = pair()
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    for data in (compressor.compress(bytes(128)), b"", b"no frame at all"):
        folder = frame(tmp_path, base, data, raw=True)
        with pytest.raises(CorruptFileError, match="zstd frame"):
            diffpack.convert(folder, base=base)
        (folder / SHARD).unlink()
        (folder / INDEX).unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"delta_encoding": "deltas"}, UsageError),
        ({"compression_format": "lz4"}, UsageError),
        ({"checksum_format": "md5"}, UsageError),
        ({"version": 3}, CorruptFileError),
    ],
)
def test_indexes_of_other_kinds_are_refused(tmp_path, metadata, kind):
    base, tuned = pair()
    with pytest.raises(kind):
        diffpack.convert(published(tmp_path / "d", base, tuned, "xor", **metadata), base=base)


def test_an_index_without_a_weight_map_is_refused(tmp_path):
    base, tuned = pair()
    folder = published(tmp_path / "d", base, tuned, "xor")
    index = json.loads((folder / INDEX).read_text())
    for weight_map in (None, [], {"half": 3}):
        (folder / INDEX).write_text(json.dumps({**index, "weight_map": weight_map}))
        with pytest.raises(CorruptFileError, match="index of a delta"):
            diffpack.convert(folder, base=base)
    del index["weight_map"]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="index of a delta"):
        diffpack.convert(folder, base=base)


def test_shard_names_are_no_paths(tmp_path):
    base, tuned = pair()
    folder = published(tmp_path / "d", base, tuned, "xor")
    index = json.loads((folder / INDEX).read_text())
    for shard in ("../d/" + SHARD, "/etc/passwd"):
        index["weight_map"] = dict.fromkeys(index["weight_map"], shard)
        (folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="is a path"):
            diffpack.convert(folder, base=base)
    index["weight_map"] = {"half": SHARD}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="not in the index"):
        diffpack.convert(folder, base=base)


def test_wrong_options_are_refused(tmp_path):
    base, tuned = pair()
    diff = diffpack.extract(base, tuned)
    for options in ({"encoding": "x"}, {"checksum": "md5"}, {"version": "0"}, {"version": "-1"}, {"other": "1"}):
        with pytest.raises(UsageError):
            diffpack.convert(diff, tmp_path / "out", to="sglang-delta", base=base, options=options)
    with pytest.raises(DiffpackError, match="ending does not tell"):
        diffpack.convert(diff, tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()
