"""Where in a zip archive its members lie, so that they can be read, and mapped, like parts of any file."""

from __future__ import annotations

import zipfile
import zlib
from typing import IO

from diffpack.checkpoints.weights_file import FileStream, WeightsFile
from diffpack.errors import AGAIN, CheckpointError

ZIP = b"PK\x03\x04"
"""What a zip archive starts with."""
_LOCAL_HEADER = 30  # bytes before a member's name
_NAME_LENGTH, _EXTRA_LENGTH = slice(26, 28), slice(28, 30)  # in the local header, little-endian
_ENCRYPTED = 1  # flag bit


class ZipMembers:
    """The members of an archive by their names, as its directory tells; `file` is the archive.

    Raises `CheckpointError` for two members of one name, and, from the methods, for one not there, encrypted, or not
    where the directory says; whatever zipfile raises for a damaged directory.
    """

    def __init__(self, file: WeightsFile) -> None:
        self.file = file
        try:
            self._archive = zipfile.ZipFile(FileStream(file))
        except zipfile.BadZipFile:
            if file.read(0, min(len(ZIP), file.size)) != ZIP:
                raise
            raise CheckpointError(
                f"{file.path}: begins as a zip archive and has no directory at its end: it is cut off or damaged: "
                f"{AGAIN}"
            ) from None
        items, self._end = self._archive.infolist(), self._archive.start_dir
        self.infos = {item.filename: item for item in items}
        if len(self.infos) < len(items):
            raise CheckpointError(f"{file.path}: damaged: two members of one name")
        if sum(item.compress_size for item in items) > file.size:  # each would be read as if it had its own
            raise CheckpointError(f"{file.path}: damaged: its members lie over each other")

    def is_stored(self, name: str) -> bool:
        """Tell whether a member's bytes stand in the file as they are."""
        item = self.infos[name]
        plain = item.compress_type == zipfile.ZIP_STORED and item.file_size == item.compress_size
        return plain and not item.flag_bits & _ENCRYPTED

    def place(self, name: str) -> tuple[int, int]:
        """Where a member's bytes begin in the file, and how many there are, packed or not."""
        path = self.file.path
        if name not in self.infos:
            raise CheckpointError(f"{path}: damaged: it has no member {name}")
        item = self.infos[name]
        if item.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"{path}: its member {name} is encrypted")
        start = item.header_offset
        header = self.file.read(start, _LOCAL_HEADER)
        lengths = (int.from_bytes(header[part], "little") for part in (_NAME_LENGTH, _EXTRA_LENGTH))
        start += _LOCAL_HEADER + sum(lengths)
        if header[: len(ZIP)] != ZIP or start + item.compress_size > self._end:
            raise CheckpointError(f"{path}: damaged: its member {name} is not where the directory says")
        return start, item.compress_size

    def read_stored(self, name: str) -> bytes:
        """A stored member's bytes, compared with their checksum where there is one (torch can leave them out)."""
        content = self.file.read(*self.place(name))
        if self.infos[name].CRC not in (0, zlib.crc32(content)):
            raise CheckpointError(f"{self.file.path}: damaged: the checksum of {name} is wrong")
        return content

    def unpacked(self, name: str) -> IO[bytes]:
        """A member, packed or not, to be read from its beginning; its checksum is compared at its end, by zipfile."""
        return self._archive.open(self.infos[name])
