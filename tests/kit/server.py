"""A real server of ours: a process that listens on loopback with TLS, and people who ask it as a program would."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from headstart.server import admins
from headstart.server.settings import Settings
from headstart.store.membership import Membership
from headstart.wire.https import Answer, Client, Identity
from tests.kit import admitted, nursery
from tests.kit.admitted import PASSWORD as PASSWORD

SITE, SITE_PASSWORD = "root", "the password of the site"


class Person:
    """Somebody who has logged in, or a program with a token; ``ask`` gives the answer whatever its status."""

    def __init__(self, identity: Identity, name: str = "", password: str = "", code: str = "") -> None:
        self.client = Client(identity)
        self.headers: dict[str, str] = {}
        if name:
            answer = self.ask("POST", "/v1/session", {"name": name, "password": password, "code": code})
            assert answer.status == 201, answer.detail
            cookie = answer.headers["set-cookie"].split(";")[0]
            self.headers = {"Cookie": cookie, "X-Csrf-Token": answer.json()["csrf"]}

    def ask(self, method: str, path: str, value: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        body = None if value is None else json.dumps(value).encode()
        told = {"Content-Type": "application/json"} if body is not None else {}
        return self.client.request(method, path, body, {**told, **self.headers, **(headers or {})})

    def get(self, path: str) -> Any:
        return self._good(self.ask("GET", path))

    def post(self, path: str, value: object) -> Any:
        return self._good(self.ask("POST", path, value))

    def put(self, path: str, value: object) -> None:
        self._good(self.ask("PUT", path, value))

    def delete(self, path: str) -> None:
        self._good(self.ask("DELETE", path))

    @staticmethod
    def _good(answer: Answer) -> Any:
        assert answer.status < 400, (answer.status, answer.detail)
        return answer.json() if answer.data else None


@dataclass(slots=True)
class Tenant:
    """With an admin who has logged in."""

    id: str
    name: str
    admin: Person

    def repository(self, name: str = "main", **values: object) -> str:
        return str(self.admin.post("/v1/repositories", {"name": name, **values})["id"])

    def join_token(self, repository: str = "main") -> str:
        wanted = {"kind": "join", "name": "joining", "repository": repository}
        return str(self.admin.post("/v1/tokens", wanted)["token"])

    def program(self, role: str, repository: str | None = None) -> Person:
        """One with a token of that role."""
        wanted = {"kind": "api", "name": f"a-{role}", "role": role, "repository": repository}
        token = self.admin.post("/v1/tokens", wanted)["token"]
        old = self.admin.client.identity
        return Person(Identity(old.url, token, old.fingerprint))

    def host(self, name: str = "alpha", repository: str = "main") -> Membership:
        """One that has joined, without a machine behind it."""
        asked = {"token": self.join_token(repository), "name": name, "installation": f"of {name}", "version": "1"}
        told = self.admin.post("/v1/host/join", asked)
        old = self.admin.client.identity
        kept = {each: told[each] for each in ("token", "tenant", "host", "repository", "expires")}
        return Membership(url=old.url, fingerprint=old.fingerprint, **kept)


@dataclass(slots=True)
class Server:
    """A context manager: it runs inside. Its data stays in ``folder``, for another one that goes on with it.

    ``options`` are of the command line, such as ``--database URL``; ``port`` 0: any that is free."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    #: A module; that of the product, unless a test wants another.
    program: str = "headstart"
    #: By Python and from nothing, as users start it; otherwise by ``nursery``.
    anew: bool = False
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    process: subprocess.Popen[str] | nursery.Child | None = None

    def __enter__(self) -> Self:
        self.make_admin()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = self._command("--listen", f"127.0.0.1:{self.port}", *self.options)
        environment = self._environment()
        with open(self.folder / "server.log", "a") as log:
            if self.program == "headstart" and not self.anew:
                self.process = nursery.start(command, environment, log)
            else:
                self.process = subprocess.Popen(
                    [*self._python(), *command], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
                )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "server.log").read_text()[-4000:]
        told = json.loads(line)
        self.identity = Identity(told["url"], "", told["fingerprint"])
        self.port = int(told["url"].rpartition(":")[2])

    def stop(self) -> None:
        """As systemd does it."""
        self._end(kill=False)

    def kill(self) -> None:
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        if self.process is None:
            return
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def site(self) -> Person:
        return self.person(SITE)

    def person(self, name: str) -> Person:
        """Somebody who is there, with a new session."""
        person = Person(self.identity)
        with self.writing() as connection:
            person.headers = admitted.session(connection, name)
        return person

    def tenant(self, name: str) -> Tenant:
        """A new one, with an admin of its name."""
        with self.writing() as connection:
            tenant = admitted.tenant(connection, SITE, name)
            admitted.user(connection, SITE, f"{name}-admin", "admin", tenant)
        return Tenant(tenant, name, self.person(f"{name}-admin"))

    def user(self, tenant: Tenant, name: str, role: str) -> str:
        """The id of somebody whom the tenant's admin makes, with ``PASSWORD``."""
        with self.writing() as connection:
            return admitted.user(connection, f"{tenant.name}-admin", name, role, tenant.id)

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        """In its database, past it."""
        return admitted.writing(self._database() or f"sqlite:///{self.folder / 'server.db'}")

    def make_admin(self) -> None:
        """As ``headstart server admin`` does, without a process of its own, which would take seconds. A new file of
        SQLite is a copy of one that has been through it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = self.folder / "server.db"
        database = self._database()
        if database is None and not own.exists():
            own.write_bytes(_begun())
        else:
            _make_admin(self.folder, database or f"sqlite:///{own}")

    def at_the_machine(self, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
        """``headstart server`` with these arguments, beside the running one. ``password``: a new one, if it asks."""
        environment = {**self._environment(), "HEADSTART_NEW_PASSWORD": password}
        database = self._database()
        told = () if database is None else ("--database", database)
        command = [*self._python(), *self._command()[:-2], *arguments, "--data", str(self.folder), *told]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    def _database(self) -> str | None:
        if "--database" in self.options:
            return self.options[self.options.index("--database") + 1]
        return self.environment.get("HEADSTART_SERVER_DATABASE")

    def _python(self) -> list[str]:
        return [sys.executable, "-m", self.program]

    def _command(self, *arguments: str) -> list[str]:
        return ["--json", "server", *arguments, "--data", str(self.folder)]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {**kept, **self.environment}


@functools.cache
def _begun() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        own = Path(name, "server.db")
        _make_admin(Path(name), f"sqlite:///{own}")
        assert [each.name for each in own.parent.glob("server.db*")] == ["server.db"], "all of it is in one file"
        return own.read_bytes()


def _make_admin(folder: Path, database: str) -> None:
    admins.put(Settings(folder, database, str(folder / "objects")), SITE, SITE_PASSWORD)
