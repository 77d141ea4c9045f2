"""All targets by name. Each returns for any bytes whatever; anything raised is a finding."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import guest, monitor, stored

TARGETS: dict[str, Callable[[bytes], None]] = {**guest.TARGETS, **monitor.TARGETS, **stored.TARGETS}
