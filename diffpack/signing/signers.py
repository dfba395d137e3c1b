"""Whose signatures count: public keys, and allowed_signers files as `ssh-keygen -Y verify` reads them (ssh-keygen(1)).

::

    ssh-ed25519 AAAA... comment                                          a public key's file: any number of such lines
    alice@example.org,bob@* namespaces="diffpack" ssh-ed25519 AAAA...    an allowed_signers file, with principals

The options `namespaces`, `valid-after` and `valid-before` are kept to. `cert-authority`, and any other, is refused by
name: a restriction that were passed over would let in whom it keeps out.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from diffpack.errors import DiffpackError, UsageError
from diffpack.signing.keys import KEY_TYPE, public_key
from diffpack.signing.small_file import read_small
from diffpack.signing.sshsig import NAMESPACE

OneSource = str | os.PathLike[str] | bytes
SignersLike = OneSource | Sequence[OneSource]
"""A file of public keys or an allowed_signers file by its path, what such a file holds as bytes, or several of them."""

_KEY_TYPES = re.compile(r"(ssh|ecdsa-sha2|sk-ssh|sk-ecdsa-sha2|webauthn)-[\w@.-]{1,60}")
_FIELD = re.compile(r'("(?:[^"]*)"|[^\s"]+)[ \t]+(.*)')
_QUOTED = r'"((?:\\"|[^"\\]|\\(?!"))*)"'  # one way to read each letter, so that none is tried twice
_OPTIONS = re.compile(rf'((?:{_QUOTED}|[^\s"])+)[ \t]+(.*)')  # blanks may stand between quotes
_OPTION = re.compile(rf"([A-Za-z-]{{1,40}})(?:={_QUOTED})?(?:,|$)")
_TIME = re.compile(r"(\d{8})(\d{4}(?:\d\d)?)?(Z?)")


@dataclass(frozen=True)
class Signer:
    """A public key (wire form) whose signatures count; `where` is the line that says so.

    `principals` are who it belongs to, as they stand there, none for a bare key. `namespaces` are patterns, none for
    any; the times are those the line is good between, both included.
    """

    key: bytes
    where: str
    principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def objection(self, now: datetime) -> str:
        """Why the line does not let its key sign diffs at this time; "" if it does."""
        if self.namespaces and not _matches(NAMESPACE, self.namespaces):
            return f"{self.where}: its namespaces do not include {NAMESPACE}"
        if self.valid_after is not None and now < self.valid_after:
            return f"{self.where}: valid only after {_told(self.valid_after)}"
        if self.valid_before is not None and now > self.valid_before:
            return f"{self.where}: valid only before {_told(self.valid_before)}"
        return ""


@dataclass(frozen=True)
class _Options:
    namespaces: tuple[str, ...] = ()
    times: dict[str, datetime] = field(default_factory=dict)


def read_signers(sources: SignersLike) -> list[Signer]:
    """Everyone whose signature counts, in the order given.

    Raises `UsageError` for a source that names no Ed25519 key, a line that is not understood and a private key;
    `DiffpackError` if a file cannot be read.
    """
    several = [sources] if isinstance(sources, str | bytes | os.PathLike) else list(sources)
    if not several:
        raise UsageError("nobody's signature counts: name a key, or an allowed_signers file")
    return [signer for source in several for signer in _read_one(source)]


def _read_one(source: OneSource) -> list[Signer]:
    where = "the keys" if isinstance(source, bytes) else os.fspath(source)
    try:
        data = source if isinstance(source, bytes) else read_small(source, "list of keys")
    except FileNotFoundError as error:
        raise DiffpackError(f"{where}: no such file of keys") from error
    if data.startswith(b"-----BEGIN "):
        raise UsageError(f"{where}: not a public key; `ssh-keygen -y -f KEY` prints that of a private one")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{where}: not a text, and so no list of keys") from None
    signers, others = [], set()
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        at = f"{where}:{number}"
        try:
            principals, options, kind, rest = _parts(line)
            if kind != KEY_TYPE:
                others.add(kind)  # no signature of such a key is taken, so the line lets nobody in
                continue
            key = _key(rest)
        except ValueError as error:
            raise UsageError(f"{at}: {error}") from None
        times = options.times
        signers.append(
            Signer(key, at, principals, options.namespaces, times.get("valid-after"), times.get("valid-before"))
        )
    if not signers:
        found = f" (there are {', '.join(sorted(others))})" if others else ""
        raise UsageError(f"{where}: names no key of the kind {KEY_TYPE}{found}")
    return signers


def _parts(line: str) -> tuple[tuple[str, ...], _Options, str, str]:
    """Principals, options, kind of key, and what follows that. Raises `ValueError`."""
    first, rest = _word(line)
    if _KEY_TYPES.fullmatch(first) and not _KEY_TYPES.match(rest):
        return (), _Options(), first, rest  # the file of a public key
    fields = _FIELD.fullmatch(line)
    if not fields:
        raise ValueError("neither a public key nor a line of an allowed_signers file")
    principals, rest = tuple(fields[1].strip('"').split(",")), fields[2]
    options = _Options()
    kind, after = _word(rest)
    if not _KEY_TYPES.fullmatch(kind):
        found = _OPTIONS.fullmatch(rest)
        if not found:
            raise ValueError("neither a public key nor a line of an allowed_signers file")
        options = _options(found[1])
        kind, after = _word(found[3])
        if not _KEY_TYPES.fullmatch(kind):
            raise ValueError(f"no kind of key where one should stand: {kind[:40]!r}")
    return principals, options, kind, after


def _word(text: str) -> tuple[str, str]:
    """The first word of a text, and what follows it."""
    first, *rest = text.split(maxsplit=1)
    return first, rest[0] if rest else ""


def _options(text: str) -> _Options:
    """Read `name="value",name`. Raises `ValueError` for one that is not known, or stands there twice."""
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _OPTION.match(text, at)
        if not found:
            raise ValueError(f"not options of a signer: {text[:80]!r}")
        name, value = found[1].lower(), found[2]
        if name not in ("namespaces", "valid-after", "valid-before"):
            raise ValueError(f"the option {name} is not known here, so the line cannot be kept to")
        if value is None or name in values:
            raise ValueError(f"the option {name} has no value, or two")
        values[name] = value.replace('\\"', '"')
        at = found.end()
    patterns = values.pop("namespaces", None)
    if patterns is not None and not patterns:
        raise ValueError("the option namespaces has no value, or two")
    times = {name: _time(value) for name, value in values.items()}
    if len(times) == len(("valid-after", "valid-before")) and times["valid-after"] >= times["valid-before"]:
        raise ValueError("valid-after is not before valid-before")
    return _Options(tuple(patterns.split(",")) if patterns else (), times)


def _time(text: str) -> datetime:
    """Read YYYYMMDD, with HHMM or HHMMSS, in the local time or with Z at its end in UTC. Raises `ValueError`."""
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:40]!r} is not a time (YYYYMMDD[HHMM[SS]][Z])")
    clock = (found[2] or "").ljust(6, "0")
    try:
        read = datetime.strptime(found[1] + clock, "%Y%m%d%H%M%S")
    except ValueError:
        raise ValueError(f"{text!r} is not a time (YYYYMMDD[HHMM[SS]][Z])") from None
    return read.replace(tzinfo=UTC) if found[3] else read.astimezone()


def _told(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _key(rest: str) -> bytes:
    """The key in base64 that a line goes on with, checked. Raises `ValueError`."""
    letters = rest.split(maxsplit=1)[:1]
    try:
        wire = base64.b64decode(letters[0] if letters else "", validate=True)
        public_key(wire)
    except (binascii.Error, ValueError):
        raise ValueError(f"not a key of the kind {KEY_TYPE}, or a damaged one") from None
    return wire


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a list of patterns (ssh_config(5)) takes a name: one fits and none that begins with `!` does."""
    fits = [(pattern.startswith("!"), _fits(name, pattern.removeprefix("!"))) for pattern in patterns]
    return not any(negated and hit for negated, hit in fits) and any(hit for negated, hit in fits if not negated)


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern of `*` and `?` takes a name; brackets are letters."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))
