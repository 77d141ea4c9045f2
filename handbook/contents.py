"""Which page stands where in the site: every file of ``docs/``, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: By part. Pages of ``docs/`` by their names; those that are written by the code begin with ``reference/``.
PARTS: Mapping[str, Sequence[str]] = {
    "Understanding": ("concepts", "faq", "comparison", "patents"),
    "Guides": (
        *(
            "install",
            "start",
            "guides",
            "libvirt",
            "proxmox",
            "everyday",
            "overlays",
            "migration",
            "guest-only",
            "object-storage",
            "policies",
        ),
        *("load", "planning", "appliance"),
    ),
    "When something is wrong": ("emergency", "damage"),
    "Getting it back": ("restore", "restore-files", "restore-disks", "restore-boot", "restore-serve"),
    "A fleet": ("server", "server-hosts", "server-rights", "server-jobs", "server-pages", "server-restore"),
    "Operations": ("operations", "repository", "monitoring", "compatibility", "security"),
    "Reference": ("cli", "reference/commands", "reference/api", "reference/metrics", "format", "agent-protocol"),
    "Evidence": ("reliability", "benchmarks", "scale", "fleet", "choices", "planning-figures"),
    "Inside": ("design", "testing", "dependencies", "CONTRIBUTING"),
}


def files() -> list[str]:
    """Those that people wrote, as paths in the project, without the ending."""
    pages = [page for part in PARTS.values() for page in part if not page.startswith("reference/")]
    return [page if page.isupper() else f"docs/{page}" for page in pages]
