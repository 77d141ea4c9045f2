"""A store in a bucket of S3 that can lock its objects: until then nobody changes or removes them, whoever he is.

A bucket with object lock has versions. To delete what is locked only hides it: its version stays until the lock ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from headstart import errors
from headstart.store import contract, replies
from headstart.store.contract import Protection
from headstart.store.objects import Bucket, ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from headstart.store.s3 import Account

_NO_LOCK = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "InvalidRequest"}


class LockingStore(ObjectStore):
    """``account`` is called once, when the server is first needed. Its objects are locked once ``locks().protect`` says
    so: obstore has no word for it, so boto3 carries them."""

    def __init__(
        self,
        url: str,
        bucket: str,
        prefix: str,
        account: Callable[[], Account],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = bucket
        self._open_account = account
        self._clock = clock  # a server refuses who has one that is wrong by much
        self._account: Account | None = None
        self._account_lock = threading.Lock()
        self._protection: Protection | None = None
        super().__init__(url, prefix, self._connect_bucket)

    def create(self, key: str, data: contract.Data) -> None:
        protection = self._protection
        if protection is None or not protection.covers(key):
            super().create(key, data)
            return
        path, client = self._path(key), self.client
        try:
            with self._translated(f"write {key} in {self._url}"):
                client.put_object(
                    Bucket=self._name,
                    Key=path,
                    Body=bytes(data),
                    IfNoneMatch="*",
                    ObjectLockMode="COMPLIANCE",
                    ObjectLockRetainUntilDate=_date(self._clock() + protection.seconds),
                )
        except errors.HeadstartError as error:
            if error.facts.get("status") == 412:
                raise self._exists(key) from error
            raise

    def locks(self) -> contract.Locks:
        return self

    @property
    def client(self) -> S3Client:
        return self._opened().client

    def days(self) -> None:
        """The bucket's default retention is not asked for: each object is locked by name."""

    def protect(self, protection: Protection) -> None:
        self._protection = protection

    def available(self) -> bool:
        try:
            with self._translated(f"ask whether objects can be locked in {self._url}"):
                found = self.client.get_object_lock_configuration(Bucket=self._name)
        except errors.HeadstartError as error:
            if error.facts.get("code") in _NO_LOCK:
                return False
            raise
        return found["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"

    def locked_until(self, key: str) -> float:
        try:
            with self._translated(f"look at {key} in {self._url}"):
                until = self.client.head_object(Bucket=self._name, Key=self._path(key)).get("ObjectLockRetainUntilDate")
        except errors.HeadstartError as error:
            if error.facts.get("status") == 404:
                raise contract.Missing(f"{key} is missing in {self._url}.", object=key) from error
            raise
        return until.timestamp() if until is not None else 0.0

    def extend(self, key: str, until: float) -> None:
        with self._translated(f"lock {key} in {self._url}"):
            self.client.put_object_retention(
                Bucket=self._name,
                Key=self._path(key),
                Retention={"Mode": "COMPLIANCE", "RetainUntilDate": _date(until)},
            )

    def _opened(self) -> Account:
        with self._account_lock:
            if self._account is None:
                self._account = self._open_account()
            return self._account

    def _connect_bucket(self) -> Bucket:
        return self._opened().bucket(self._name)

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            reply = replies.Reply(status, said.get("Code", ""), said.get("Message") or str(error))
            raise replies.error_of(reply, action) from error
        except BotoCoreError as error:
            raise replies.error_of(replies.Reply(None, "", str(error)), action) from error


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
