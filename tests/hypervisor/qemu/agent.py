"""A guest agent on a socket of the test's."""

from __future__ import annotations

import json
import socket
import threading


class Agent:
    """A guest agent that freezes and thaws nothing but a word."""

    def __init__(self) -> None:
        self.state = "thawed"
        self.changed = threading.Condition()

    def serve(self, client: socket.socket) -> None:
        rest = b""
        while data := client.recv(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                client.sendall(self.answer(json.loads(line.lstrip(b"\xff"))))

    def answer(self, request: dict[str, object]) -> bytes:
        match request["execute"]:
            case "guest-sync-delimited":
                arguments = request["arguments"]
                assert isinstance(arguments, dict)
                return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
            case "guest-fsfreeze-freeze":
                self.become("frozen")
            case "guest-fsfreeze-thaw":
                self.become("thawed")
            case "guest-fsfreeze-status":
                return json.dumps({"return": self.state}).encode() + b"\n"
        return b'{"return": 1}\n'

    def become(self, state: str) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()
