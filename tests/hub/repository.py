"""A repository of the Hub in memory: its history, branches, tags and pull requests, and who may do what.

Knows what the Hub stores, how it names files, and what a commit is. Does not know HTTP (`tests/hub/server.py`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

LARGE_FILES = (".safetensors", ".bin", ".parquet", ".zip", ".tar")


@dataclass
class PullRequest:
    """Changes that wait beside a branch."""

    number: int
    title: str
    author: str
    base: str
    status: str = "open"
    """`draft`, `open`, `merged` or `closed`."""

    @property
    def ref(self) -> str:
        """The name of its head."""
        return f"refs/pr/{self.number}"


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
    writers: set[str] = field(default_factory=set)
    """Users who may write to it although they are neither its owner nor of its organisation."""
    large_files: tuple[str, ...] = LARGE_FILES
    """Endings of the files that lie in the large storage; `()` for none."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    """Branches, and heads of pull requests as `refs/pr/N`."""
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)

    @property
    def owner(self) -> str:
        """The user or organisation that it belongs to."""
        return self.repo_id.split("/")[0]

    def commit(self, files: Mapping[str, bytes] | Path, branch: str = "main", title: str = "a commit") -> str:
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
        commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        self.parents[commit] = self.refs.get(branch)
        self.titles[commit] = title
        self.refs[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """Returns the commit that a branch, a tag or a commit names."""
        named = self.refs.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)

    def history(self, revision: str = "main") -> Iterator[str]:
        """Yields a commit and those before it, the newest first."""
        commit = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.parents[commit]

    def is_large(self, path: str, content: bytes) -> bool:
        """Tells whether a file lies in the large storage; an empty one never does."""
        return bool(content) and bool(self.large_files) and path.endswith(self.large_files)

    def tree_entry(self, path: str, content: bytes) -> dict:
        """Returns a file as the Hub lists it."""
        if not self.is_large(path, content):
            return {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
        return {"type": "file", "path": path, "size": len(content), "oid": git_oid(pointer), "lfs": lfs}


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
