"""The machine and the versions that figures were taken with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def describe() -> dict[str, str]:
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{_distribution()}, kernel {platform.release()}",
        "python": platform.python_version(),
        "qemu": _version("qemu-system-x86_64", "--version"),
        "libnbd": _version("nbdcopy", "--version"),
        "libvirt": _version("libvirtd", "--version"),
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())


def _version(*command: str) -> str:
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    found = re.search(r"\d[\d.]*", first)
    return found.group(0) if found else first
