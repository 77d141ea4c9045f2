"""POSIX access control lists, from how file systems store them to how the system takes them."""

from __future__ import annotations

import struct

from headstart.volumes.filesystem import Malformed

_USER, _GROUP = 0x02, 0x08
_NOBODY = 0xFFFFFFFF
#: Version of ``struct posix_acl_xattr_header``.
_XATTR = struct.pack("<I", 2)


def from_ext(stored: bytes) -> bytes:
    """``struct ext4_acl_entry``: an id only where there is one."""
    if stored[:4] != struct.pack("<I", 1):
        raise Malformed("an access control list of no known version")
    found, at = _XATTR, 4
    while at + 4 <= len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, at)
        at += 4
        owner = _NOBODY
        if tag in (_USER, _GROUP):
            if at + 4 > len(stored):
                raise Malformed("an access control list without an end")
            (owner,) = struct.unpack_from("<I", stored, at)
            at += 4
        found += struct.pack("<HHI", tag, permissions, owner)
    return found


def from_xfs(stored: bytes) -> bytes:
    """``struct xfs_acl``: a count, then tag, id and permissions of each, in the byte order of networks."""
    if len(stored) < 4:
        raise Malformed("an access control list without an end")
    (count,) = struct.unpack_from(">I", stored)
    if len(stored) < 4 + 12 * count:
        raise Malformed("an access control list without an end")
    found = _XATTR
    for number in range(count):
        tag, owner, permissions = struct.unpack_from(">IIH", stored, 4 + 12 * number)
        found += struct.pack("<HHI", tag, permissions, owner if tag in (_USER, _GROUP) else _NOBODY)
    return found
