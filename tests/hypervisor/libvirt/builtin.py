"""What libvirt's own driver for tests begins with."""

from __future__ import annotations

#: The domain that this driver begins with (libvirt's src/test/test_driver.c).
URI, UUID = "test:///default", "6695eb01-f6a4-8304-79aa-97f2502e193f"
