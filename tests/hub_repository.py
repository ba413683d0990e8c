"""A repository of the Hub in memory: commits, branches, tags, and who may read it.

Knows what the Hub stores and how it names files. Does not know HTTP (`tests/hub_server.py`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

LARGE_FILES = (".safetensors", ".bin", ".parquet", ".zip", ".tar")


@dataclass
class Repository:
    """One model or data set: commits are maps from path to content, refs are names for commits."""

    kind: str
    """`models` or `datasets`, as in the API's paths."""
    repo_id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Users who may read it although it is private, or who have accepted its terms."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes] | Path, branch: str = "main") -> str:
        """Adds a commit that holds exactly these files, and points a branch at it.

        Returns:
            `str`: the commit, 40 hex digits.
        """
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        digest = hashlib.sha1(f"{self.repo_id} {len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        self.commits[digest.hexdigest()] = dict(files)
        self.refs[branch] = digest.hexdigest()
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        """Returns the commit that a branch, a tag or a commit names."""
        return self.refs.get(revision, revision if revision in self.commits else None)


def git_oid(content: bytes) -> str:
    """Returns the id that git gives a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def card_metadata(files: Mapping[str, bytes]) -> dict | None:
    """Returns what stands at the top of a repository's card, as the Hub shows it even where the files are gated."""
    parts = files.get("README.md", b"").decode().split("---\n")
    try:
        return yaml.safe_load(parts[1]) if len(parts) > 2 else None
    except yaml.YAMLError:
        return None


def tree_entry(path: str, content: bytes) -> dict:
    """Returns a file as the Hub lists it."""
    entry: dict = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if path.endswith(LARGE_FILES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
