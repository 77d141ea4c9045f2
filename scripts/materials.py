"""Adds to a bill of materials what the wheel holds of others beside packages of Python's: ``materials.py FILE``.

FILE is CycloneDX in JSON, as ``cyclonedx-py`` wrote it. ``scripts/package`` calls it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HTMX = Path("src/headstart/server/pages/static/htmx.min.js")
ROOT = "root-component"


def main() -> None:
    file = Path(sys.argv[1])
    bill = json.loads(file.read_text())
    added = htmx()
    # In the order in which the others are.
    bill["components"] = sorted([*bill["components"], added], key=lambda each: tuple(each["bom-ref"].split("==")))
    [ours] = [each for each in bill["dependencies"] if each["ref"] == ROOT]
    ours["dependsOn"] = sorted([*ours["dependsOn"], added["bom-ref"]])
    bill["dependencies"] = sorted([*bill["dependencies"], {"ref": added["bom-ref"]}], key=lambda each: str(each["ref"]))
    file.write_text(json.dumps(bill, indent=2))


def htmx() -> dict[str, Any]:
    found = re.search(r'version:"([0-9.]+)"', HTMX.read_text())
    if found is None:
        sys.exit(f"{HTMX} does not tell its version")
    return {
        "bom-ref": f"htmx.org=={found[1]}",
        "licenses": [{"license": {"acknowledgement": "declared", "id": "0BSD"}}],
        "name": "htmx.org",
        "purl": f"pkg:npm/htmx.org@{found[1]}",
        "type": "library",
        "version": found[1],
    }


if __name__ == "__main__":
    main()
