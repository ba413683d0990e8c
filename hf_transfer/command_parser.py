"""How the commands beside `train` read their flags.

Knows how a mistake is worded. Does not know any flag, and imports nothing heavy.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hf_transfer.errors import UserError, nearest


class CommandParser(argparse.ArgumentParser):
    """Mistakes become `UserError`s, worded and shown like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}", hint=f"{self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses all of `argv`; an unknown flag is an error that names the nearest known one."""
        options, unknown = self.parse_known_args(argv)
        if unknown:
            given = unknown[0].split("=")[0]
            known = nearest(given, [name for action in self._actions for name in action.option_strings])
            raise UserError(f"{self.prog}: unknown argument {given}", hint=known or f"{self.prog} --help")
        return options
