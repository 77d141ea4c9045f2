"""A request that takes its time: what the loop needs to know of it."""

from typing import Any, Dict, Optional


class Refused(Exception):
    """The request comes to nothing; ``code`` is one of ``messages``."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Work:
    """One request under way. ``step`` does a little of it and returns; the answer ends it."""

    #: What the request is answered with; not None: done.
    answer: Optional[Dict[str, Any]] = None
    #: A descriptor that ``step`` waits for, beside ``due``.
    descriptor: Optional[int] = None
    #: When ``step`` is to be called at the latest, by ``time.monotonic``.
    due: Optional[float] = None
    #: Others may use what it keeps: where all end, it ends after them.
    keeps = False

    def hungry(self, credit: int) -> bool:
        """``step`` has something to do at once."""
        return False

    def step(self, now: float) -> None:
        """Raises ``Refused``."""

    def cancel(self) -> None:
        """End it at once; also called after an answer."""
