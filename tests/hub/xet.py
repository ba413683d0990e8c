"""The Hub's Xet storage, in a folder: hf_xet reads and writes it by itself when it is told `local://FOLDER`.

Knows where hf_xet keeps the files' names (its shards) and how to have a file put together again. `local://` is a
facility of hf_xet's own tests without a promise; seen with hf_xet 1.8.0. Does not know HTTP.
"""

import hashlib
import shutil
import struct
import tempfile
from pathlib import Path

_RECORD = 48
_END = b"\xff" * 32
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30


class XetStore:
    """Files by SHA-256, as hf_xet put them there."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def url(self) -> str:
        """What the client is told to talk to."""
        return f"local://{self.folder}"

    def hash_of(self, sha256: str) -> str | None:
        """Returns the Xet hash of a file that is here."""
        return self._hashes().get(sha256)

    def read(self, sha256: str, size: int) -> bytes | None:
        """Returns a file that is here."""
        xet_hash = self.hash_of(sha256)
        if xet_hash is None:
            return None
        import hf_xet

        with tempfile.TemporaryDirectory() as folder:
            # A client that is still alive has the store locked; a copy can be read.
            copy, target = Path(folder) / "store", Path(folder) / "file"
            shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("shard-session"))
            with hf_xet.XetSession().new_file_download_group(
                endpoint=f"local://{copy}", token="", custom_headers={}
            ) as group:
                group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(target))
            content = target.read_bytes()
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def _hashes(self) -> dict[str, str]:
        """Returns SHA-256 -> Xet hash of all files, from all shards."""
        found = {}
        for shard in self.folder.glob("xet/xorbs/shards/*.mdb"):
            content, place = shard.read_bytes(), _RECORD
            while content[place : place + 32] != _END:
                flags, segments = struct.unpack_from("<II", content, place + 32)
                name = _hex(content[place : place + 32])
                place += _RECORD * (1 + segments * (2 if flags & _VERIFIED else 1))
                if flags & _DESCRIBED:
                    found[_hex(content[place : place + 32])] = name
                    place += _RECORD
        return found


def _hex(raw: bytes) -> str:
    """Returns hex digits as hf_xet writes them: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))
