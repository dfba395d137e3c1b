"""A diff that is closed while threads read it says so: no descriptor is read that may be another file's by then."""

from __future__ import annotations

import os
import threading

import pytest

from diffpack.errors import DiffpackError
from diffpack.format import source
from diffpack.format.source import FileSource


def test_closing_waits_for_who_reads(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abcd")
    opened = FileSource.open(tmp_path / "a")
    began, go_on, found = threading.Event(), threading.Event(), []
    pread = os.pread

    def slow(descriptor, length, offset):
        began.set()
        assert go_on.wait(10)
        return pread(descriptor, length, offset)  # EBADF, or another file's bytes, if it were closed

    monkeypatch.setattr(source.os, "pread", slow)
    reader = threading.Thread(target=lambda: found.append(opened.read(0, 4)))
    reader.start()
    assert began.wait(10)
    opened.close()
    with pytest.raises(DiffpackError, match=r"a: is closed$"):
        opened.read(0, 4)
    go_on.set()
    reader.join()
    assert found == [b"abcd"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened._descriptor)


def test_what_fails_while_reading_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abcd")
    opened = FileSource.open(tmp_path / "a")

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(source.os, "pread", broken)
    with pytest.raises(DiffpackError, match=r"a: cannot be read: Input/output error$"):
        opened.read(0, 4)
