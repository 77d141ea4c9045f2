"""What an address of a repository names: a directory, a bucket, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headstart import errors
from headstart.store import address, membership, open_store


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
def test_the_address_of_a_directory_opens_it(tmp_path: Path, form: str) -> None:
    open_store(form.format(tmp_path / "a b")).create("config", b"x")
    assert (tmp_path / "a b" / "config").read_bytes() == b"x"


def test_an_escaped_url(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/a%20b").create("config", b"x")
    assert (tmp_path / "a b" / "config").exists()


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("here")
    monkeypatch.chdir("/")
    store.create("config", b"x")
    assert (tmp_path / "here" / "config").exists()


def test_opening_a_directory_makes_nothing(tmp_path: Path) -> None:
    open_store(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("gs://my.bucket/", "gs://my.bucket"),
        ("az://container/x", "az://container/x"),
    ],
)
def test_the_address_of_a_bucket_is_opened_without_asking_it(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked yet, for credentials either."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    assert repr(open_store(url)) == told
    assert address.local_directory(url) is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("there/", "{here}/there"),
        ("link", "{here}/there"),
        ("file://{here}/a%20b", "{here}/a b"),
        ("FILE://localhost{here}/there/../x", "{here}/x"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("HTTPS://Server/main/", "https://server:8443/main"),
        ("https://server:8443/main", "https://server:8443/main"),
    ],
)
def test_one_spelling_of_each_place(url: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path)
    assert address.canonical(url.format(here=tmp_path)) == place.format(here=tmp_path)


def test_the_repository_of_a_host_need_not_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = tmp_path / membership.FILE
    membership.save(joined, membership.Membership("https://server:8443", "t", "", "tenant", "host", "main", 0.0))
    monkeypatch.setenv(membership.PATH, str(joined))
    assert address.canonical("https://server") == "https://server:8443/main"
    joined.unlink()
    assert address.canonical("https://server") == "https://server:8443/"


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/x",
        "gs://secret@bucket/a b",
        "s3://k:secret@[bucket/x",
        "https://user:secret@host/x",
        "https://user:secret@host:bad/x",
        "https://user:secret@/x",
        "https://host/x?token=secret",
        "https://host/x#secret",
        "ftp://user:secret@host/x",
        "s3://AKIA:secret/secret@bucket/x",
        "https://user:secret/secret@host/x",
        "gs://key:secret?secret#secret@bucket",
        "file://user:secret@host/x",
    ],
)
def test_a_refusal_repeats_no_password(url: str) -> None:
    """It is shown, and logged."""
    for ask in (address.open_store, address.canonical):
        with pytest.raises(errors.Usage) as caught:
            ask(url)
        assert "secret" not in f"{caught.value} {caught.value.facts}"


def test_who_uses_a_directory_loads_no_clouds(tmp_path: Path) -> None:
    program = "import sys; from headstart.store import open_store; open_store(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True)
    assert not {"boto3", "botocore", "obstore"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "'ftp'.*a path, file:///path, s3://"),
        ("file://host/x", "file:///path"),
        ("file://", "directory"),
        ("", "directory"),
        ("a\0b", "directory"),
        ("file:///x?y=1", "file:///path"),
        ("s3://", "name of a bucket"),
        ("s3:///prefix", "name of a bucket"),
        ("s3://Bucket/x", "name of a bucket"),
        ("s3://user@bucket/x", "no user and no password"),
        ("s3://[bucket/x", "Invalid IPv6 URL"),
        ("s3://zone--use1-az4--x-s3/x", "name of a bucket"),
        ("s3://bucket/a b", "prefix"),
        ("s3://bucket/a/.b", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("gs://bucket/x#y", "no '#'"),
        ("az://bucket/x?y", "no '\\?'"),
    ],
)
def test_says_what_there_is(url: str, said: str) -> None:
    with pytest.raises(errors.Usage, match=said):
        open_store(url)
