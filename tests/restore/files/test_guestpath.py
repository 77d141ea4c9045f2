"""How users name files, volumes, and files on volumes."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.restore.files import guestpath
from headstart.restore.files.guestpath import GuestPath


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("web@latest:", GuestPath("web@latest", "", "")),
        ("web@latest:/etc/hosts", GuestPath("web@latest", "", "/etc/hosts")),
        ("0123abCD:/with:colon", GuestPath("0123abCD", "", "/with:colon")),
        ("web.example-1@latest:/x", GuestPath("web.example-1@latest", "", "/x")),
        ("web@latest:vda/1:/etc", GuestPath("web@latest", "vda/1", "/etc")),
        ("web@latest:vg/root:", GuestPath("web@latest", "vg/root", "/")),
        ("web@latest:vg/root", GuestPath("web@latest", "vg/root", "")),
        ("web@latest:LABEL=a b:/x y", GuestPath("web@latest", "LABEL=a b", "/x y")),
        (r"web@latest:C:\Users\Ann", GuestPath("web@latest", "C:", r"\Users\Ann")),
        ("web@latest:c:/Users", GuestPath("web@latest", "c:", "/Users")),
        ("web@latest:D:", GuestPath("web@latest", "D:", "/")),
        ("web@latest:/line\nbreak", GuestPath("web@latest", "", "/line\nbreak")),
    ],
)
def test_what_is_meant(text: str, path: GuestPath) -> None:
    assert guestpath.parse(text) == path


@pytest.mark.parametrize("text", ["", "web", "/etc/hosts", "web@latest", "web:/etc", ":/etc", "abc"])
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(errors.Usage, match="SNAPSHOT:/PATH"):
        guestpath.parse(text)
