"""A collector of garbage as the format asks for it: a draft that sleeps is given up before anything of it goes.

It holds no lock: an owner who comes back finds the tombstone in the place of its manifest, and cannot publish.
"""

from __future__ import annotations

from collections.abc import Iterator

from headstart.repository import draft as leases
from headstart.repository import layout, pack, snapshot, tree
from headstart.repository.repo import Repository


def collect(repo: Repository, *, revoking: bool = True) -> int:
    """Give up all drafts, then remove the packs that no snapshot needs. Returns how many.

    Not ``revoking`` is the mistake that it must not make: what a sleeping draft has is swept all the same, and still
    listed."""
    drafts, _ = leases.all_drafts(repo)
    for each in drafts if revoking else ():
        if snapshot.revoke(repo, each.id):
            leases.drop(repo, each.id)
    repo.index.adopt_all()
    # A pack that is gone, and still listed, must not pass for the one that holds a chunk.
    repo.drop_lost()
    needed = {location.pack_id for chunk in _needed(repo) if (location := repo.index.find(chunk))}
    swept = [name for name, _ in list(repo.store.list(layout.PACKS)) if pack.id_of(name) not in needed]
    # An index that lists what is gone would have others refer to it. Packs that none lists are found by themselves.
    for name, _ in list(repo.store.list(layout.INDEXES)) if swept and revoking else ():
        repo.store.delete(name)
    for name in swept:
        repo.store.delete(name)
    return len(swept)


def _needed(repo: Repository) -> Iterator[bytes]:
    """Every chunk of every snapshot."""
    for manifest in snapshot.all_manifests(repo).manifests:
        for disk in manifest.disks:
            for visited in tree.visit(repo, disk.root, disk.size, lambda _node: True):
                assert isinstance(visited.slots, tuple | list), visited.slots
                yield visited.node_id
                yield from (chunk for chunk in visited.slots if chunk is not None)
        for attachment in manifest.attachments:
            yield from attachment.chunks
