"""When something that failed is tried again: later and later."""

from __future__ import annotations

from dataclasses import dataclass

#: What failed is tried again after so long, doubled each time up to the other.
AGAIN_SECONDS, AGAIN_AT_MOST = 30.0, 900.0


@dataclass(slots=True)
class Retry:
    """By wall time."""

    failures: int = 0
    at: float = 0.0

    def failed(self, now: float) -> None:
        self.at = now + min(AGAIN_SECONDS * 2 ** min(self.failures, 16), AGAIN_AT_MOST)
        self.failures += 1

    def succeeded(self) -> None:
        self.failures, self.at = 0, 0.0

    def waits(self, now: float) -> bool:
        # A clock that was put back must not make it wait for longer than it ever does.
        return now < self.at <= now + AGAIN_AT_MOST
