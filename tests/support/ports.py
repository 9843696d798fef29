"""Ports for servers that have to be told theirs."""

from __future__ import annotations

import random
import socket

PORTS = range(15_000, 30_000)
"""Below what Linux gives to connections and to servers that ask for any port, from 32,768 on: until the server that it
is meant for has started, which takes seconds, one that the system gave may well be given to somebody else."""


def free_port() -> int:
    """A port on which nobody listens on loopback."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
