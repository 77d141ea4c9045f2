"""A bucket of S3, or of what speaks like it, found as the AWS command line finds it.

Endpoint, region, profile and credentials come from the usual variables and files, by boto3; obstore carries the data.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.store import S3Store

from headstart import errors
from headstart.store import objects
from headstart.store.objects import Bucket

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3.client import S3Client

#: boto3 renews credentials in time when it is asked for them; so long is its answer good.
_CREDENTIALS_FOR = timedelta(minutes=5)
_NO_CREDENTIALS = (
    "There are no credentials for S3. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write"
    " ~/.aws/credentials: see docs/object-storage.md."
)


class Account:
    """Who we are for a server of S3, and where it is. Looks into files, and asks the network at most for credentials;
    raises ``Usage`` where that does not do."""

    def __init__(self) -> None:
        try:
            self._session = botocore.session.get_session()
            self.client: S3Client = self._new_client()
            self._credentials: Credentials | None = self._session.get_credentials()
            self.certificates: str | None = (
                os.environ.get("AWS_CA_BUNDLE") or self._session.get_config_variable("ca_bundle") or None
            )
        except (BotoCoreError, ValueError) as error:
            raise errors.Usage(
                f"S3 cannot be used as it is set up: {error} Correct ~/.aws or the environment."
            ) from error
        if self._credentials is None:
            raise errors.Usage(_NO_CREDENTIALS)

    def bucket(self, name: str) -> Bucket:
        """Does not ask whether it is there."""
        endpoint = self.client.meta.endpoint_url
        style: dict[str, Any] = {"endpoint": endpoint}
        if (getattr(self.client.meta.config, "s3", None) or {}).get("addressing_style") == "virtual":
            parts = urlsplit(endpoint)
            style = {"endpoint": f"{parts.scheme}://{name}.{parts.netloc}", "virtual_hosted_style_request": True}
        reading, writing = (self._store(name, style, writing=writing) for writing in (False, True))
        return Bucket(reading, writing, endpoint, self.certificates)

    def _store(self, name: str, style: dict[str, Any], *, writing: bool) -> S3Store:
        return S3Store(
            name,
            region=self.client.meta.region_name,
            conditional_put="etag",
            disable_bulk_delete=True,
            client_options=objects.client_options(self.client.meta.endpoint_url, self.certificates, writing=writing),
            retry_config={"max_retries": 0},
            credential_provider=self._present,  # type: ignore[arg-type]
            **style,
        )

    def _new_client(self) -> S3Client:
        # boto3 looks at AWS_DEFAULT_REGION alone; all other programs at AWS_REGION before it.
        region = os.environ.get("AWS_REGION") or self._session.get_config_variable("region") or "us-east-1"
        config = Config(
            connect_timeout=objects.CONNECT_SECONDS,
            read_timeout=objects.ANSWER_SECONDS,
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
        )
        return boto3.Session(botocore_session=self._session).client("s3", region_name=region, config=config)

    def _present(self) -> dict[str, Any]:
        assert self._credentials is not None
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_FOR,
        }
