"""Opening stores in object storage: the kind of server, and what is wrapped around it."""

from __future__ import annotations

from headstart.store import clouds, contract
from headstart.store.locking import LockingStore
from headstart.store.objects import ObjectStore
from headstart.store.retrying import RetryingStore
from headstart.store.s3 import Account


def open_bucket(kind: str, bucket: str, prefix: str, patience: float) -> contract.Store:
    """``kind``: s3, gs or az. ``prefix`` without slashes around it. Touches nothing yet."""
    url = f"{kind}://{bucket}/{prefix}".rstrip("/")
    within = f"{prefix}/" if prefix else ""
    if kind == "s3":
        return RetryingStore(LockingStore(url, bucket, within, Account), patience=patience)
    connect = clouds.google if kind == "gs" else clouds.azure
    return RetryingStore(ObjectStore(url, within, lambda: connect(bucket)), patience=patience)
