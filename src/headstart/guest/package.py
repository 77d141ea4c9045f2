"""The one file that is put into a guest: a zipapp of ``headstart.agentd``."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from headstart import agentd, durable, errors

SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = "import sys\nfrom headstart.agentd.main import main\nsys.exit(main(sources={digest!r}))\n"
_PACKAGE = '"""Only what runs in a guest."""\n'
_RELEASE = "headstart/agentd/release.py"
#: Not before 1980, the beginning of time in a zip file. The same sources make the same file.
_DATE = (1980, 1, 1, 0, 0, 0)
#: The file is run, also by who is not root.
_MODE = 0o755


def sources() -> dict[str, str]:
    """Name and text of every module inside."""
    folder = Path(agentd.__file__).parent
    found = {f"headstart/agentd/{path.name}": path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    return dict(sorted({"headstart/__init__.py": _PACKAGE, **found}.items()))


def digest(texts: Mapping[str, str]) -> str:
    """Of names and texts: two builds of the same sources are the same, whatever packed them."""
    found = hashlib.blake2b(_MAIN.encode(), digest_size=16)
    for name, text in sorted(texts.items()):
        for part in (name.encode(), text.encode()):
            found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()


def recorded(texts: Mapping[str, str]) -> str:
    """What ``agentd.release.SOURCES`` has to be: the digest of everything but the module in which it stands."""
    return digest({name: text for name, text in texts.items() if name != _RELEASE})


def build(texts: Mapping[str, str] | None = None) -> bytes:
    """The file: ``python3 FILE`` runs it."""
    texts = sources() if texts is None else texts
    memory = io.BytesIO()
    memory.write(SHEBANG)
    with zipfile.ZipFile(memory, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in [("__main__.py", _MAIN.format(digest=digest(texts))), *sorted(texts.items())]:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return memory.getvalue()


def write(path: Path) -> bytes:
    """Put the file at ``path``, durable and whole or not at all; what it holds. Replaces one of ours and nothing else.

    Raises ``TargetRefused``."""
    if os.path.lexists(path) and not is_ours(path):
        raise errors.TargetRefused(
            f"{path} is there already, and is no agent of Headstart's: name another file.", target=str(path)
        )
    content = build()
    try:
        _replace(path, content)
    except OSError as error:
        raise errors.TargetRefused(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that can be.", target=str(path)
        ) from error
    return content


def is_ours(path: Path) -> bool:
    """A regular file that holds an agentd, of any release."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _RELEASE in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), _MODE)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    durable.sync_folder(path.parent)
