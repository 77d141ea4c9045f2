"""Who is connected to a socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from headstart.wire import peers

LISTING = """\
u_str ESTAB  0 0      /run/web qmp.sock 101 * 102 users:(("qemu-system-x86",pid=7,fd=18))
u_str ESTAB  0 0                      * 102 * 101 users:(("virt \\"x\\"",pid=8,fd=3),("child",pid=9,fd=3))
u_str ESTAB  0 0      /run/other.sock   103 * 104
u_str ESTAB  0 0                      * 104 * 103 users:(("else",pid=10,fd=3))
u_str LISTEN 0 1      /run/web qmp.sock 100 * 0   users:(("qemu-system-x86",pid=7,fd=17))
"""


def test_peers_are_read_from_a_listing() -> None:
    assert peers.parse(LISTING, {"/run/web qmp.sock"}) == ['process 8 (virt \\"x\\")', "process 9 (child)"]
    assert peers.parse(LISTING, {"/run/nobody"}) == []
    assert peers.parse("nonsense\n", {"/run/web"}) == []


def test_a_client_is_found_also_by_a_link(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (tmp_path / "link").symlink_to(path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen()
        assert peers.clients(path) == []
        client.connect(str(path))
        with server.accept()[0]:
            for name in ("socket", "link"):
                [found] = peers.clients(tmp_path / name)
                assert found.startswith(f"process {os.getpid()} (")
