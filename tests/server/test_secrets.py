"""What costs much to derive, on purpose: how often that is done, and who waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import argon2
import pytest

from headstart.repository import sealed
from headstart.repository.keys import Secrets
from headstart.server import passwords, structure
from headstart.server.checking import Checker
from headstart.server.repositories import Place
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site


def test_who_is_nobody_costs_as_much_as_everybody_and_has_no_password() -> None:
    theirs, ours = (argon2.extract_parameters(each) for each in (passwords.NOBODY, passwords.hashed("x" * 12)))
    assert theirs == ours
    assert not passwords.is_right(passwords.NOBODY, "nobody")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects")))


def place(name: str) -> Place:
    return Place(name, "acme", name, 0, True)


def at_once(checker: Checker, site: Site, *places: Place) -> list[threading.Thread]:
    def check(each: Place) -> None:
        checker.check(site, each, "packs/" + "a" * 32, b"")

    threads = [threading.Thread(target=check, args=(each,)) for each in places]
    for thread in threads:
        thread.start()
    return threads


def test_the_first_packs_of_two_repositories_do_not_wait_for_each_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, opened = threading.Barrier(2), []

    def derive(_site: Site, of: Place, _password: bytes) -> Secrets:
        both.wait(20)  # for the other one: alone it breaks
        opened.append(of.id)
        return cast(Secrets, object())

    monkeypatch.setattr(structure, "secrets", derive)
    monkeypatch.setattr(structure, "sealed_password", lambda _connection, _place: site.sealer.seal("structure", b"x"))
    monkeypatch.setattr(sealed, "check", lambda *_: None)
    for thread in at_once(Checker(), site, place("one"), place("two")):
        thread.join()
    assert sorted(opened) == ["one", "two"]


def test_for_one_repository_it_is_derived_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, opened = threading.Event(), threading.Event(), []

    def derive(*_: Any) -> Secrets:
        begun.set()
        assert go.wait(20)
        opened.append(1)
        return cast(Secrets, object())

    wrapped = site.sealer.seal("structure", b"x")
    monkeypatch.setattr(structure, "secrets", derive)
    monkeypatch.setattr(structure, "sealed_password", lambda _connection, _place: wrapped)
    monkeypatch.setattr(sealed, "check", lambda *_: None)
    threads = at_once(Checker(), site, *[place("one")] * 4)
    assert begun.wait(20)
    go.set()
    for thread in threads:
        thread.join()
    assert opened == [1]
