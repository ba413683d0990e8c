"""What the Hub does for clients that write: repositories, uploads, commits, pull requests, tags, collections.

Knows these calls as huggingface_hub makes them. A commit is all or nothing. Does not know routes or faults
(`tests/hub/server.py`).
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterable

import yaml

from hf_transfer.publishing.license_table import license_table
from tests.hub.call import Call, Refused
from tests.hub.reading import LAST_MODIFIED
from tests.hub.repository import PullRequest, Repository

_GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Writing(Call):
    """Calls that change something."""

    def auth_check(self, kind: str, repo_id: str, write: str | None = None) -> None:
        if write:
            self.writable(kind, repo_id)
        else:
            self.repository(kind, repo_id, for_content=True)
        self.send_json({})

    def create_repo(self) -> None:
        if self.token is None:
            raise Refused(401, message="Invalid username or password.")
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user
        repo_id, kind = f"{owner}/{asked['name']}", f"{asked.get('type') or 'model'}s"
        if not self.is_member(owner):
            raise Refused(403, message=f"You have no rights under the namespace {owner}")
        self.check_token_writes(owner)
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            raise Refused(409, message="You already created this repository", url=url)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        repository = Repository(kind, repo_id, private=private, large_files=self.hub.large_files)
        repository.commit({".gitattributes": _GIT_ATTRIBUTES}, title="initial commit")
        self.hub.repositories[kind, repo_id] = repository
        self.send_json({"url": url, "name": repo_id, "id": repo_id})

    def validate_yaml(self) -> None:
        errors, warned = _check_card(json.loads(self.body)["content"])
        answer = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warned]}
        self.send_json(answer, 400 if errors else 200)

    def preupload(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self._target(kind, repo_id)
        files = repository.commits[self.commit_of(repository, revision)]
        rows = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            is_large = repository.is_large(path, b"x" * min(file["size"], 1))
            row = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if path in files:
                entry = repository.tree_entry(path, files[path])
                row["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            rows.append(row)
        self.send_json({"files": rows})

    def lfs_batch(self, repo_id: str, kind: str = "models") -> None:
        self._target(kind, repo_id)
        rows = []
        for asked in json.loads(self.body)["objects"]:
            row = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.uploads:
                prefix = "datasets/" if kind == "datasets" else ""
                row["actions"] = {
                    "upload": {"href": f"{self.hub.storage_url}/upload/{asked['oid']}"},
                    "verify": {"href": f"{self.hub.url}/{prefix}{repo_id}.git/info/lfs/verify"},
                }
            rows.append(row)
        self.send_json({"transfer": "basic", "objects": rows})

    def lfs_put(self, sha256: str) -> None:
        if self.token is not None:
            raise Refused(400, message="Only one way to authenticate is allowed")
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise Refused(400, message="The content is not what was announced")
        self.hub.uploads[sha256] = self.body
        self.send(200, b"", {"ETag": f'"{sha256}"'})

    def lfs_verify(self, repo_id: str, kind: str = "models") -> None:
        self._target(kind, repo_id)
        asked = json.loads(self.body)
        if len(self.hub.uploads.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, message="Object not found")
        self.send_json({})

    def xet_token(self, kind: str, repo_id: str, access: str, revision: str) -> None:
        self._target(kind, repo_id) if access == "write" else self.repository(kind, repo_id, for_content=True)
        expires = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": self.hub.xet.url,
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expires),
            "Content-Type": "application/json",
        }
        content = json.dumps({"casUrl": self.hub.xet.url, "accessToken": "xet", "exp": expires}).encode()
        self.send(200, content, headers)

    def commit(self, kind: str, repo_id: str, revision: str) -> None:
        as_pull = self.query("create_pr") == "1"
        repository = self._target(kind, repo_id)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        head = self.commit_of(repository, revision)
        if revision not in repository.refs:
            raise Refused(400, message="A commit needs a branch")
        if header.get("parentCommit") not in (None, head):
            raise Refused(412, message="A commit has happened since. Please refresh and try again.")
        files = self._changed(repository, repository.commits[head], lines[1:])
        answer: dict[str, object] = {"success": True, "hookOutput": ""}
        branch = revision
        if as_pull:
            pull = self._open_pull(repository, header["summary"], revision, head, "open")
            branch = pull.ref
            answer["pullRequestUrl"] = f"{self.hub.url}/{repo_id}/discussions/{pull.number}"
        commit = repository.commit(files, branch, header["summary"])
        self.send_json({**answer, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{commit}"})

    def branch(self, kind: str, repo_id: str, name: str) -> None:
        repository = self.writable(kind, repo_id)
        if self.command == "DELETE":
            if repository.refs.pop(name, None) is None:
                raise Refused(404, "RevisionNotFound", "No such branch")
        else:
            if name in repository.refs:
                raise Refused(409, message="Reference already exists")
            start = json.loads(self.body or b"{}").get("startingPoint") or "main"
            repository.refs[name] = self.commit_of(repository, start)
        self.send_json({})

    def tag(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self.writable(kind, repo_id)
        if self.command == "DELETE":
            if repository.tags.pop(revision, None) is None:
                raise Refused(404, "RevisionNotFound", "No such tag")
        else:
            name = json.loads(self.body)["tag"]
            if name in repository.tags:
                raise Refused(409, message=f"Tag {name} already exists")
            repository.tags[name] = self.commit_of(repository, revision)
        self.send_json({})

    def open_discussion(self, kind: str, repo_id: str) -> None:
        repository = self._target(kind, repo_id)
        title = json.loads(self.body)["title"]
        pull = self._open_pull(repository, title, "main", repository.refs["main"], "draft")
        self.send_json({"num": pull.number, "url": f"{self.hub.url}/{repo_id}/discussions/{pull.number}"})

    def merge(self, kind: str, repo_id: str, number: str) -> None:
        repository = self.writable(kind, repo_id)
        pull = self.pull_request(repository, number)
        if repository.refs[pull.base] not in repository.history(pull.ref):
            raise Refused(409, message="There are conflicts")
        repository.refs[pull.base] = repository.refs[pull.ref]
        pull.status = "merged"
        self.send_json({})

    def create_collection(self) -> None:
        asked = json.loads(self.body)
        if not self.is_member(asked["namespace"]):
            raise Refused(403, message="You have no rights under this namespace")
        self.check_token_writes(asked["namespace"])
        slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{'0' * 24}"
        if slug in self.hub.collections:
            raise Refused(409, message="This collection exists already", slug=slug)
        self.hub.collections[slug] = {
            "slug": slug,
            "title": asked["title"],
            "owner": {"name": asked["namespace"]},
            "items": [],
            "lastUpdated": LAST_MODIFIED,
            "position": 0,
            "private": asked.get("private", False),
            "theme": "blue",
            "upvotes": 0,
        }
        self.send_json(self.hub.collections[slug])

    def add_to_collection(self, slug: str) -> None:
        if slug not in self.hub.collections:
            raise Refused(404, message="Collection not found")
        collection = self.hub.collections[slug]
        if not self.is_member(collection["owner"]["name"]):
            raise Refused(403, message="You may not change this collection")
        self.check_token_writes(collection["owner"]["name"])
        item = json.loads(self.body)["item"]
        if item["id"] in [present["id"] for present in collection["items"]]:
            raise Refused(409, message="It is in the collection already")
        collection["items"].append({"_id": f"{len(collection['items']):024}", "position": 0, **item})
        self.send_json(collection)

    def _target(self, kind: str, repo_id: str) -> Repository:
        """Returns the repository to upload to; for a pull request, reading it and a token that writes are enough."""
        if self.query("create_pr") != "1":
            return self.writable(kind, repo_id)
        repository = self.repository(kind, repo_id, for_content=True)
        self.check_token_writes(self.user or "")
        return repository

    def _open_pull(self, repository: Repository, title: str, base: str, head: str, status: str) -> PullRequest:
        pull = PullRequest(len(repository.pull_requests) + 1, title, self.user or "", base, status)
        repository.pull_requests.append(pull)
        repository.refs[pull.ref] = head
        return pull

    def _changed(self, repository: Repository, before: dict[str, bytes], lines: Iterable[dict]) -> dict[str, bytes]:
        files = dict(before)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                if repository.is_large(value["path"], files[value["path"]]):
                    raise Refused(400, message=f"{value['path']} belongs into the large storage")
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._uploaded(value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
            elif line["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        return files

    def _uploaded(self, sha256: str, size: int) -> bytes:
        if sha256 not in self.hub.uploads:
            content = self.hub.xet.read(sha256, size)
            if content is None:
                raise Refused(400, message=f"Nothing was uploaded as {sha256}")
            self.hub.uploads[sha256] = content
        return self.hub.uploads[sha256]


def _check_card(text: str) -> tuple[list[str], list[str]]:
    """Returns what the Hub calls errors in a card's metadata, and what it warns of."""
    parts = text.split("---\n")
    if len(parts) < 3 or parts[0].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        card = yaml.safe_load(parts[1]) or {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"], []
    if not isinstance(card, dict):
        return ["the metadata are no mapping"], []
    known = {row.id for row in license_table().values() if row.hub == "yes"}
    licenses = card.get("license", [])
    errors = [
        f'"license" must be one of the Hub\'s ids, not {name!r}'
        for name in (licenses if isinstance(licenses, list) else [licenses])
        if name not in known
    ]
    errors += [
        f'"{key}" must be a list' for key in ("model-index", "widget") if not isinstance(card.get(key, []), list)
    ]
    return errors, []
