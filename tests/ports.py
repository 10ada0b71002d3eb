"""A TCP port on loopback for a server of a test.

Not one of those that the kernel gives to outgoing connections: such a one may be taken by anybody
between the choice and the server's start, and while the server is away in an outage. Whoever tries to
connect to it then may even be given the same port to connect from, and is connected to itself.
"""

import random
import socket
from typing import Final

# below net.ipv4.ip_local_port_range (32768 and up)
_FIRST: Final = 20_000
_LAST: Final = 32_000
_random: Final = random.SystemRandom()  # tests seed the other one: all workers would choose alike


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    while True:
        port = _random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
