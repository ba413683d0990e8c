"""What the Hub answers to clients that read: repositories, files, references, who somebody is.

Knows these calls as huggingface_hub, transformers, timm and datasets make them. Does not know routes or faults
(`tests/hub/server.py`).
"""

import hashlib
import json
import re
from urllib.parse import parse_qs, quote

from tests.hub.call import Call, Refused
from tests.hub.repository import PullRequest, Repository, card_metadata, git_oid

LAST_MODIFIED = "2026-01-01T00:00:00.000Z"


class Reading(Call):
    """Calls that change nothing."""

    def whoami(self) -> None:
        if self.token is None:
            raise Refused(401, message="Invalid username or password.")
        name = self.hub.users[self.token]
        orgs = [{"type": "org", "name": org, "roleInOrg": "write"} for org in sorted(self.hub.orgs.get(name, ()))]
        token = {"displayName": "test", "role": self.hub.role(self.token), "createdAt": LAST_MODIFIED}
        scopes = self.hub.scopes.get(self.token)
        if scopes is not None:
            token["fineGrained"] = {
                "global": [],
                "scoped": [{"entity": {"type": "user", "name": n}, "permissions": list(p)} for n, p in scopes.items()],
            }
        user = {"type": "user", "id": name, "name": name, "fullname": name, "orgs": orgs}
        self.send_json({**user, "auth": {"type": "access_token", "accessToken": token}})

    def refs(self, kind: str, repo_id: str) -> None:
        repository = self.repository(kind, repo_id)
        heads = {name: sha for name, sha in repository.refs.items() if not name.startswith("refs/pr/")}
        pulls = {name: sha for name, sha in repository.refs.items() if name.startswith("refs/pr/")}
        answer = {"branches": _refs(heads, "refs/heads/"), "tags": _refs(repository.tags, "refs/tags/")}
        self.send_json({**answer, "converts": [], "pullRequests": _refs(pulls, "")})

    def commits(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self.repository(kind, repo_id)
        rows = [
            {
                "id": commit,
                "title": repository.titles[commit],
                "message": "",
                "authors": [{"user": repository.owner}],
                "date": LAST_MODIFIED,
            }
            for commit in repository.history(self.commit_of(repository, revision))
        ]
        self.send_json(rows)

    def info(self, kind: str, repo_id: str, revision: str = "main") -> None:
        repository = self.repository(kind, repo_id)
        commit = self.commit_of(repository, revision)
        files = repository.commits[commit]
        card = card_metadata(files)
        license_id = (card or {}).get("license")
        self.send_json(
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [f"license:{license_id}"] if isinstance(license_id, str) else [],
                "downloads": 0,
                "likes": 0,
                "lastModified": LAST_MODIFIED,
                "createdAt": LAST_MODIFIED,
                "cardData": card,
                "siblings": [_sibling(repository, path, content) for path, content in sorted(files.items())],
            }
        )

    def tree(self, kind: str, repo_id: str, revision: str, path: str = "") -> None:
        repository = self.repository(kind, repo_id)
        commit = self.commit_of(repository, revision)
        files = repository.commits[commit]
        recursive = self.query("recursive").lower() in ("1", "true")
        prefix = f"{path}/" if path else ""
        inside = [name for name in sorted(files) if name.startswith(prefix)]
        if path and not inside:
            raise Refused(404, "EntryNotFound", f"{path} does not exist", commit)
        folders = {name[: position + 1] for name in inside for position in _slashes(name, len(prefix))}
        entries = [
            repository.tree_entry(name, files[name]) for name in inside if recursive or "/" not in name[len(prefix) :]
        ]
        for folder in sorted(folder.rstrip("/") for folder in folders):
            if recursive or "/" not in folder[len(prefix) :]:
                entries.append({"type": "directory", "path": folder, "size": 0, "oid": git_oid(folder.encode())})
        self.send_json(entries)

    def paths_info(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self.repository(kind, repo_id)
        files = repository.commits[self.commit_of(repository, revision)]
        asked = _asked_paths(self.headers.get("Content-Type") or "", self.body)
        entries = [repository.tree_entry(name, files[name]) for name in asked if name in files]
        for name in asked:
            if name not in files and any(path.startswith(f"{name}/") for path in files):
                entries.append({"type": "directory", "path": name, "size": 0, "oid": git_oid(name.encode())})
        self.send_json(entries)

    def resolve(self, repo_id: str, revision: str, path: str, kind: str = "models") -> None:
        repository = self.repository(kind, repo_id, for_content=True)
        commit = self.commit_of(repository, revision)
        content = repository.commits[commit].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound", f"{path} does not exist", commit)
        headers = {"X-Repo-Commit": commit}
        if repository.is_large(path, content):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{self.hub.storage_url}/large/{sha256}?name={quote(path)}"
            xet_hash = self.hub.xet.hash_of(sha256)
            if xet_hash is not None:
                route = f"{self.hub.url}/api/{kind}/{repo_id}/xet-read-token/{commit}"
                headers |= {"X-Xet-Hash": xet_hash, "X-Xet-Refresh-Route": route}
            self.send(302, b"", headers)
        else:
            self.send(200, content, {**headers, "ETag": f'"{git_oid(content)}"'})

    def large(self, sha256: str) -> None:
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        self._send_range(content, sha256)
                        return
        raise Refused(404)

    def discussions(self, kind: str, repo_id: str) -> None:
        repository = self.repository(kind, repo_id)
        status = self.query("status") or "all"
        found = [pull for pull in reversed(repository.pull_requests) if status in ("all", pull.status)]
        rows = [self._discussion(repository, pull) for pull in found]
        self.send_json({"count": len(rows), "start": 0, "discussions": rows})

    def discussion(self, kind: str, repo_id: str, number: str) -> None:
        repository = self.repository(kind, repo_id)
        pull = self.pull_request(repository, number)
        changes = {"base": f"refs/heads/{pull.base}", "mergeCommitId": None}
        details = {"events": [], "filesWithConflicts": [], "changes": changes, "diff": ""}
        self.send_json({**self._discussion(repository, pull), **details})

    def collection(self, slug: str) -> None:
        if slug not in self.hub.collections:
            raise Refused(404, message="Collection not found")
        self.send_json(self.hub.collections[slug])

    def _discussion(self, repository: Repository, pull: PullRequest) -> dict:
        return {
            "num": pull.number,
            "title": pull.title,
            "author": {"name": pull.author},
            "createdAt": LAST_MODIFIED,
            "status": pull.status,
            "isPullRequest": True,
            "repo": {"name": repository.repo_id, "type": repository.kind.removesuffix("s")},
        }

    def _send_range(self, content: bytes, sha256: str) -> None:
        """Sends the content, or the part that the client asks for (resumed downloads, streamed data sets)."""
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            self.send(200, content, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(206, content[start : end + 1], headers)


def _refs(refs: dict[str, str], prefix: str) -> list[dict]:
    return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": sha} for name, sha in refs.items()]


def _sibling(repository: Repository, path: str, content: bytes) -> dict:
    entry = repository.tree_entry(path, content)
    sibling = {"rfilename": path, "size": len(content), "blobId": entry["oid"]}
    if "lfs" in entry:
        sibling["lfs"] = {"sha256": entry["lfs"]["oid"], "size": len(content), "pointerSize": 134}
    return sibling


def _asked_paths(content_type: str, body: bytes) -> list[str]:
    if "json" in content_type:
        return json.loads(body)["paths"]
    return parse_qs(body.decode()).get("paths", [])


def _slashes(name: str, start: int) -> list[int]:
    return [position for position, letter in enumerate(name) if letter == "/" and position >= start]
