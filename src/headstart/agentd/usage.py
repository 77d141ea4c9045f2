"""What we ourselves take of the guest: whoever judges how busy it is has to subtract it."""

import os
import time
from typing import Any, Dict


class Usage:
    """Since this program began."""

    def __init__(self) -> None:
        self._bytes: Dict[str, int] = {}
        self._seconds: Dict[str, float] = {}
        self._last = 0.0
        #: Over the guest's network; a port of virtio-serial's and vsock are none.
        self.sent_bytes = 0

    def read(self, device: str, count: int, begun: float) -> None:
        """Of a device, from ``begun`` (``time.monotonic``) until now."""
        self._bytes[device] = self._bytes.get(device, 0) + count
        self._seconds[device] = self._seconds.get(device, 0.0) + time.monotonic() - begun
        self._last = begun

    def told(self) -> Dict[str, Any]:
        """``last_read``: when the last one began; 0 if there was none. CPU with that of children that have ended."""
        return {
            "cpu_seconds": sum(os.times()[:4]),
            "read_bytes": dict(self._bytes),
            "read_seconds": dict(self._seconds),
            "last_read": self._last,
            "sent_bytes": self.sent_bytes,
        }


OWN = Usage()
