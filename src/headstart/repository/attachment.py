"""Attachments: small files kept beside the disks, such as the VM's definition and its UEFI variables."""

from __future__ import annotations

from typing import TypeVar

from headstart import errors, plain
from headstart.repository import layout
from headstart.repository.manifest import Attachment
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer

_Token = TypeVar("_Token")


def store_attachment(repo: Repository, writer: Writer[_Token], name: str, kind: str, content: bytes) -> Attachment:
    """What to name in the manifest. Durable when ``writer`` is flushed."""
    chunks = []
    for start in range(0, len(content), repo.block_size):
        data = content[start : start + repo.block_size]
        chunks.append(repo.chunk_id(data))
        writer.put(layout.ChunkClass.CONTENT, chunks[-1], data)
    return Attachment(name, kind, len(content), tuple(chunks))


def read_attachment(repo: Repository, attachment: Attachment) -> bytes:
    content = b"".join(repo.read_chunk(chunk_id) for chunk_id in attachment.chunks)
    if len(content) != attachment.size:
        raise errors.Damaged(f"The attachment {plain.line(attachment.name)} has another length than its snapshot says.")
    return content
