"""User errors: what was given, what is allowed, what to type.

Knows how a mistake of the user is worded and which exit code it gets. Does not know who raises it or how it is shown;
`hf_transfer.cli` prints it and exits.
"""


class UserError(Exception):
    """A mistake that the user can mend, shown as one message without a traceback.

    Args:
        given (`str`):
            What was found, with the offending value in it.
        allowed (`str`, *optional*):
            What would have been accepted.
        hint (`str`, *optional*):
            What to type or do next.
    """

    exit_code = 2

    def __init__(self, given: str, allowed: str | None = None, hint: str | None = None):
        self.given = given
        self.allowed = allowed
        self.hint = hint
        super().__init__(given)

    def __str__(self) -> str:
        lines = [self.given]
        if self.allowed:
            lines.append(f"Allowed: {self.allowed}")
        if self.hint:
            lines.append(f"Try: {self.hint}")
        return "\n".join(lines)


def user_message(error: UserError) -> str:
    """Returns the message for the user, without the traceback that a DataLoader's worker process packs around it."""
    text = str(error)
    packed = "Caught UserError in DataLoader worker"
    return text.rsplit("hf_transfer.errors.UserError: ", 1)[-1].strip() if text.startswith(packed) else text


def nearest(word: str, known: list[str]) -> str | None:
    """Returns the known name that looks most like `word`, or `None` where none is close."""
    import difflib

    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None
