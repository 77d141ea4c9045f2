"""Which driver reads what."""

from __future__ import annotations

from headstart.volumes import signatures
from headstart.volumes.filesystem import Driver, NotSupported, Source
from headstart.volumes.filesystems.exfat import Exfat
from headstart.volumes.filesystems.ext import Ext
from headstart.volumes.filesystems.fat import Fat
from headstart.volumes.filesystems.ntfs import Ntfs
from headstart.volumes.filesystems.xfs import Xfs


def open_driver(content: str, source: Source) -> Driver:
    """``content`` as ``signatures`` calls it. Raises ``NotSupported``, ``Malformed``, ``OSError``."""
    if content in signatures.EXT:
        return Ext(source)
    match content:
        case "vfat":
            return Fat(source)
        case "exfat":
            return Exfat(source)
        case "ntfs":
            return Ntfs(source)
        case "xfs":
            return Xfs(source)
    raise NotSupported(f"there is no driver for {content}")
