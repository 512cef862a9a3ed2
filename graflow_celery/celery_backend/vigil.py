"""Waits for the end of the process that started it. A program of its own, on the standard library alone, to stay small.

    python -I -S vigil.py < ORDERS

ORDERS is one line of JSON; after it nothing comes as long as that process lives. The kernel closes the other end of
standard input when it ends, however it ends, and then the orders are carried out: what is under "send" is sent to the
server at "address" (a path, or a host and a port), or, where that is not so simple, "command" takes this process's
place. A byte that arrives before says that the process ends in good order: then there is nothing to do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TIMEOUT = 2.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the worker, and sent to all of a group
        signal.signal(number, signal.SIG_IGN)
    orders = json.loads(sys.stdin.buffer.readline())
    if sys.stdin.buffer.read(1):
        return
    if "command" in orders:
        os.execv(orders["command"][0], orders["command"])
    with connected(orders["address"]) as server:
        server.sendall(orders["send"].encode("latin-1"))
        while server.recv(4096):  # its last command has the server close the connection
            pass


def connected(address: str | list[str | int]) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection((str(address[0]), int(address[1])), TIMEOUT)
    server = socket.socket(socket.AF_UNIX)
    server.settimeout(TIMEOUT)
    server.connect(address)
    return server


if __name__ == "__main__":
    try:
        main()
    except OSError:  # no server answers: there is the lease
        sys.exit(1)
