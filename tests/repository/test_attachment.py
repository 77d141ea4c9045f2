"""What is stored beside the disks of a snapshot comes back whole, or is named as damaged."""

from __future__ import annotations

import dataclasses

import pytest

from headstart import errors
from headstart.repository import attachment
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import BLOCK, noise


@pytest.mark.parametrize("length", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_roundtrip(repo: Repository, length: int) -> None:
    content = noise(1, length)
    with repo.writer(samples.ignore) as writer:
        attached = attachment.store_attachment(repo, writer, "OVMF_VARS.fd", "uefi", content)
    assert (attached.name, attached.kind, attached.size) == ("OVMF_VARS.fd", "uefi", length)
    assert attachment.read_attachment(stores.reopened(repo), attached) == content


def test_is_content(repo: Repository) -> None:
    """A server that holds only the structure key cannot read it."""
    with repo.writer(samples.ignore) as writer:
        attached = attachment.store_attachment(repo, writer, "definition", "text", b"x")
    location = repo.index.find(attached.chunks[0])
    assert location is not None
    assert location.frame.chunk_class is ChunkClass.CONTENT


def test_another_length_than_the_manifest_says(repo: Repository) -> None:
    with repo.writer(samples.ignore) as writer:
        attached = attachment.store_attachment(repo, writer, "definition", "text", b"x")
    with pytest.raises(errors.Damaged, match="definition"):
        attachment.read_attachment(repo, dataclasses.replace(attached, size=2))
