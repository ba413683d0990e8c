"""Ports for processes that meet: fixed ones are in use sooner or later."""

import socket


def unused_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
