"""The benchmark of hostile files runs the verbs on them, and tells what is too much and what is nobody's error."""

from __future__ import annotations

from pathlib import Path

from benchmarks import reliability
from benchmarks.reliability import BASE, Cost
from tests.tools import craft
from tests.tools.costly import FILES, OLD


def test_a_file_is_run_and_measured(tmp_path: Path):
    path, base = tmp_path / "d.dpk", tmp_path / "base.safetensors"
    base.write_bytes(craft.safetensors(OLD))
    path.write_bytes(FILES["aliases, compressed"]())
    for verb in (("inspect",), ("verify", BASE)):
        cost = reliability.run("aliases", path, verb, base)
        assert cost.nbytes == path.stat().st_size
        assert 0 < cost.seconds < 60
        assert 20 < cost.megabytes < 1000
        assert not cost.foreign
        assert cost.verb == " ".join(verb)


def test_claims_are_about_the_worst():
    few, slow = Cost("a", 10, "inspect", 0.1, 40, False), Cost("b", 10, "verify", 3.0, 300, True)
    assert all(claim.holds for claim in reliability.claims([few]))
    assert not any(claim.holds for claim in reliability.claims([few, slow]))
    assert "| b | 10 | 3.00 (verify) | 300 (verify) |" in reliability.table([few, slow])
