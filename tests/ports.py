"""Free ports, for processes that restart on the same one."""

import random
import socket
from typing import Final

_BELOW_EPHEMERAL: Final = range(20_000, 32_768)
"""Linux gives outgoing connections 32768 to 60999 (ip_local_port_range)."""


def free_port() -> int:
    """A port that is free now. No outgoing connection takes it while its process restarts."""
    while True:
        port = random.choice(_BELOW_EPHEMERAL)
        try:
            socket.create_server(("", port)).close()
        except OSError:
            continue
        return port
