"""Whether a token may write, before hours of training are spent.

Knows what the Hub tells about a token: its role, its user, the organisations and, of fine-grained ones, the rights.
Does not write anything.
"""

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from hf_transfer.errors import UserError
from hf_transfer.publishing.push_patience import patiently

_RIGHTS = ("repo.write", "repo.content.write")


def check_write_access(repo_id: str, token: str | None) -> None:
    """Makes sure that a push to `repo_id` will be let in; a repository that is missing is not made yet.

    Args:
        repo_id (`str`):
            `owner/name`.
        token (`str`, *optional*):
            In place of the one that the machine is logged in with.

    Raises:
        UserError: without the right to write, or where the Hub cannot be asked.
    """
    check_logged_in(token)
    api = HfApi(token=token)

    def ask() -> bool:
        try:
            api.auth_check(repo_id, write=True)
        except RepositoryNotFoundError as error:
            if error.response.status_code == 404:
                return False
            raise
        return True

    if not patiently("asking for write access", ask):
        check_namespace(api, repo_id)


def check_logged_in(token: str | None) -> None:
    """Makes sure that there is a token at all."""
    if token is None and get_token() is None:
        raise UserError(
            "You are not logged in to the Hub, so nothing can be pushed.",
            "a token with the right to write",
            f"`hf auth login` with a token from {constants.ENDPOINT}/settings/tokens, or HF_TOKEN",
        )


def check_namespace(api: HfApi, repo_id: str) -> None:
    """Makes sure that a repository may be made under a name.

    Raises:
        UserError: for a token that only reads, or a name that is neither the user's nor of an organisation of theirs.
    """
    said = patiently("asking who you are", api.whoami)
    owner, user = repo_id.split("/")[0], said["name"]
    known = [user, *(org["name"] for org in said.get("orgs", ()))]
    if owner not in known:
        raise UserError(
            f"Your token is that of {user}, who may not make {repo_id}.",
            f"a repository under {', '.join(known)}",
            f"--repo-id {user}/{repo_id.split('/')[1]}",
        )
    token = said.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise _cannot_write(repo_id)
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {})
        rights = {right for scope in scopes.get("scoped", ()) if scope["entity"].get("name") == owner
                  for right in scope["permissions"]}  # fmt: skip
        if not rights & set(_RIGHTS):
            raise _cannot_write(repo_id)


def _cannot_write(repo_id: str) -> UserError:
    return UserError(
        f"Your token may only read, so {repo_id} cannot be made.",
        "a token with the right to write",
        f"`hf auth login` with a token of the kind `write` ({constants.ENDPOINT}/settings/tokens)",
    )
