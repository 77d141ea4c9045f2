"""The repository: sealed chunks, image trees, snapshots and drafts in a store."""

from headstart.repository.repo import Repository, create, open_with
from headstart.repository.repo import open_repository as open  # noqa: A004

__all__ = ["Repository", "create", "open", "open_with"]
