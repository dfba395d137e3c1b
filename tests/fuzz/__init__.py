"""Fuzzing that stays: hostile bytes for everything that reads, with cost as a crash.

`python -m tests.fuzz` (make fuzz) runs the targets for any length, the ordinary tests some hundred inputs of each.

Inputs come from plain seeded random mutation that knows the formats (`changes`): a damaged digest or zip directory is
refused at the door, and only mutations that make it right again reach what lies behind. A seed and a number name an
input on any machine, which coverage-guided fuzzing does not give; hypothesis, which the laws of the algebra use
(tests/algebra/test_laws.py), draws values well and bytes of real files badly. `--engine atheris` puts Google's atheris,
where it is installed, behind the same targets and mutations.
"""
