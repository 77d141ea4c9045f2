"""The one file that is put into a guest: a zipapp of ``headstart.agentd``."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from headstart import agentd

SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = "import sys\nfrom headstart.agentd.main import main\nsys.exit(main())\n"
_PACKAGE = '"""Only what runs in a guest."""\n'
#: Not before 1980, the beginning of time in a zip file. The same sources make the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


def sources() -> dict[str, str]:
    """Name and text of every file inside."""
    folder = Path(agentd.__file__).parent
    found = {f"headstart/agentd/{path.name}": path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    return dict(sorted({"__main__.py": _MAIN, "headstart/__init__.py": _PACKAGE, **found}.items()))


def build() -> bytes:
    """The file: ``python3 FILE`` runs it."""
    memory = io.BytesIO()
    memory.write(SHEBANG)
    with zipfile.ZipFile(memory, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sources().items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return memory.getvalue()
