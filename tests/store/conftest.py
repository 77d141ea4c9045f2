"""The store in object storage, without what tries again."""

from __future__ import annotations

import pytest

from headstart.store.locking import LockingStore
from headstart.store.s3 import Account
from tests.kit.gateway import Gateway


@pytest.fixture
def direct(gateway: Gateway, bucket: str, place: str) -> LockingStore:
    """A store in a bucket that tries nothing again."""
    return LockingStore(f"s3://{bucket}/{place}", bucket, f"{place}/", Account)
