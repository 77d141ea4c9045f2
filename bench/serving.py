"""Disks of snapshots over NBD: nbdcopy from ``headstart serve``, beside nbdcopy from a raw file that nbdkit serves.

And from object storage behind an emulated line: how much longer than the line needs for the bytes alone.
``python -m bench.serving`` measures these alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import figure, realdisk
from bench.figure import Figure
from headstart import repository
from headstart.repository import Repository, layout, snapshot, tree
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.writer import Cut
from headstart.restore.serving.serving import Serving, Source, Unix
from headstart.store import open_store
from headstart.units import KIB, MIB
from tests.kit import weed as weeds
from tests.kit.link import Link
from tests.kit.weed import Weed
from tests.restore import stored

Say = Callable[[str], None]
PASSWORD = b"correct horse"
NAME = "disk"
PEER = "nbdcopy from a raw file (nbdkit)"
#: What a full backup stores together.
PIECE = 256 * KIB
#: Of the disk behind the line, and where it begins: in the midst of files.
FAR_OFFSET, FAR_SIZE = 512 * MIB, 128 * MIB
MBIT = 1_000_000 / 8
LINE, ROUND_TRIP = 100 * MBIT, 0.05


def run(folder: Path, runs: int, say: Say) -> list[Figure]:
    """``folder`` is made."""
    folder.mkdir(parents=True)
    raw = folder / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", realdisk.image(), raw], check=True)
    say("serving: storing the disk")
    return [*_near(folder, raw, runs, say), *_far(folder, raw, runs, say)]


def _near(folder: Path, raw: Path, runs: int, say: Say) -> Iterator[Figure]:
    url = str(folder / "repository")
    ours: dict[str, list[float]] = {"a file": [], "nowhere": []}
    peer: dict[str, list[float]] = {"a file": [], "nowhere": []}
    with (
        repository.create(open_store(url), PASSWORD) as repo,
        Serving(Source(repo, url, store(repo, raw, 0, raw.stat().st_size)), [NAME], Unix(folder / "ours")) as served,
        _raw(raw, folder / "peer") as uri,
    ):
        for number in range(runs):
            say(f"nbdcopy of a disk that is served: run {number + 1} of {runs}")
            for target in ours:
                ours[target].append(_copy(served.uris[NAME], target, folder))
                peer[target].append(_copy(uri, target, folder))
    for target in ours:
        yield figure.of(f"serve: nbdcopy of the disk into {target}", ours[target], peer[target], PEER, "s")


def _far(folder: Path, raw: Path, runs: int, say: Say) -> Iterator[Figure]:
    seconds: list[float] = []
    with Weed() as weed:
        os.environ.update(weed.environment)
        url = f"s3://{weed.new_bucket()}"
        with repository.create(open_store(url), PASSWORD) as made:
            found = store(made, raw, FAR_OFFSET, FAR_SIZE)
            content = sum(size for name, size in made.store.list(layout.PACKS))
        with Link(weed.url, LINE, ROUND_TRIP / 2) as link:
            os.environ.update(weeds.environment(link.url))
            for number in range(runs):
                say(f"nbdcopy of a disk behind a line: run {number + 1} of {runs}")
                source = Source(made, url, found)
                with Serving(source, [NAME], Unix(folder / "far")) as served:
                    seconds.append(_copy(served.uris[NAME], "nowhere", folder))
    name = f"serve: nbdcopy of {FAR_SIZE >> 20} MiB from S3 over {LINE / MBIT:.0f} Mbit/s, {ROUND_TRIP * 1000:.0f} ms"
    yield figure.of(name, seconds, [content / LINE] * len(seconds), "the line alone, for the bytes stored", "s")


def store(repo: Repository, raw: Path, offset: int, size: int) -> Manifest:
    """A snapshot of this part of the file, in frames as of a full backup."""
    changes: list[tuple[int, bytes | None]] = []
    zeroes = bytes(repo.block_size)
    with repo.writer(stored.ignore) as writer, raw.open("rb") as file:
        file.seek(offset)
        for start in range(0, size, PIECE):
            data = file.read(min(PIECE, size - start))
            cuts: list[Cut[int]] = []
            for at in range(0, len(data), repo.block_size):
                block = data[at : at + repo.block_size]
                if block != zeroes[: len(block)]:
                    cuts.append(Cut(repo.chunk_id(block), at, len(block)))
                    changes.append(((start + at) // repo.block_size, cuts[-1].chunk_id))
            writer.put_many(layout.ChunkClass.CONTENT, data, cuts)
        root = tree.update(repo, writer, None, 0, size, changes)
    disk = Disk(NAME, size, "raw", root, repo.block_size)
    made = Manifest(snapshot.new_id(), "bench", time.time(), None, "crash", "host", "bench", (disk,))
    return snapshot.publish(repo, made)


@contextlib.contextmanager
def _raw(raw: Path, socket: Path) -> Iterator[str]:
    process = subprocess.Popen(["nbdkit", "--foreground", "--readonly", "--unix", socket, "file", raw])
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        process.terminate()
        process.wait()


def _copy(uri: str, target: str, folder: Path) -> float:
    place = folder / "copy.raw" if target == "a file" else "null:"
    began = time.monotonic()
    subprocess.run(["nbdcopy", uri, place], check=True)
    seconds = time.monotonic() - began
    (folder / "copy.raw").unlink(missing_ok=True)
    return seconds


def main() -> None:
    folder = realdisk.CACHE / "work-serving"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for found in run(folder, 5, print):
            print(f"{found.name}: {found.ours} {found.unit}, {found.peer_name}: {found.peer}, ratio {found.ratio:.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
