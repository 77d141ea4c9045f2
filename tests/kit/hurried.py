"""The product, but that its server waits for nobody: what takes minutes, so that real clients come through, takes
seconds."""

from __future__ import annotations

import sys

from headstart.cli.main import main
from headstart.server import body, deadline

SILENCE, WHOLE, IDLE, ROOM = 1.0, 4.0, 3.0, 2.0

if __name__ == "__main__":
    body.SILENCE_SECONDS, body.WHOLE_SECONDS, body.ROOM_SECONDS = SILENCE, WHOLE, ROOM
    deadline.IDLE_SECONDS = IDLE
    sys.exit(main())
