"""Buckets of Google Cloud Storage, and containers of Azure Blob Storage.

Credentials come from the usual variables and files, which obstore knows by itself; Azure's account as well.
"""

from __future__ import annotations

import os

from obstore import exceptions
from obstore.store import AzureStore, GCSStore

from headstart import errors
from headstart.store import objects
from headstart.store.objects import Bucket

_GOOGLE = "https://storage.googleapis.com"


def google(name: str) -> Bucket:
    """Does not ask whether it is there; raises ``Usage`` where it is not said who asks."""
    certificates = os.environ.get("SSL_CERT_FILE") or None
    endpoint = os.environ.get("GOOGLE_BASE_URL") or _GOOGLE
    try:
        reading, writing = (
            GCSStore(
                name,
                client_options=objects.client_options(endpoint, certificates, writing=writing),
                retry_config={"max_retries": 0},
            )
            for writing in (False, True)
        )
    except exceptions.BaseError as error:
        raise _unusable("Google Cloud Storage", "GOOGLE_APPLICATION_CREDENTIALS", error) from error
    return Bucket(reading, writing, endpoint, certificates)


def azure(name: str) -> Bucket:
    """As ``google``."""
    certificates = os.environ.get("SSL_CERT_FILE") or None
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise errors.Usage(f"az://{name} does not say of which account: set AZURE_STORAGE_ACCOUNT_NAME.")
    given = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    endpoint = given or f"https://{account}.blob.core.windows.net"
    try:
        reading, writing = (
            AzureStore(
                name,
                account_name=account,
                endpoint=endpoint,
                client_options=objects.client_options(endpoint, certificates, writing=writing),
                retry_config={"max_retries": 0},
            )
            for writing in (False, True)
        )
    except exceptions.BaseError as error:
        raise _unusable("Azure Blob Storage", "AZURE_STORAGE_ACCOUNT_KEY", error) from error
    return Bucket(reading, writing, endpoint, certificates)


def _unusable(what: str, variable: str, error: Exception) -> errors.Usage:
    said = str(error).split("\n", 1)[0]
    return errors.Usage(f"{what} cannot be used as it is set up: {said}. See {variable} in docs/object-storage.md.")
