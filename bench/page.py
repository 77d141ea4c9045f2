"""docs/benchmarks.md, written by ``make bench``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from bench import day, inside, peace, peer, scene
from bench.figure import Figure
from headstart.units import MIB

_INTRODUCTION = """\
# Benchmarks

Written by `make bench`; the same figures are in `build/bench/result.json`. Medians of one run, ours and the peer's
measured in turn on one machine, in the same minutes: read the ratios, the seconds are this machine's.

"""

_MEANING = f"""
## What is measured
- **Full backup, incremental backup, restore**: `headstart backup NAME` and `headstart restore NAME@latest DIRECTORY`
  as whole commands, from the start of the process to its end, with encryption, compression (zstd), the audit of 3,000
  random blocks, and fsync of all that is stored. One running VM (TCG), one virtio-blk disk, qcow2, with GPT and ext4
  and files from the host's `/usr`.
- **The peer** is `nbdcopy nbd+unix:///DISK?socket=... FILE`: the same disk of the same VM, by QEMU's own NBD server,
  into a sparse raw file in the page cache (no fsync). It is the floor for reading everything once, and stands as the
  same floor beside the incremental backup and the restores.
- **What is rewritten** before an incremental backup: of each block that the guest writes, half is random and half one
  byte again and again, so that half of it can be compressed away. restic and borg find 32 KiB of random bytes, twice,
  in the place of each such block of their raw image.
- **Processor time**: user and system, of the command; and what QEMU used meanwhile (its idle guest included).
- **Peak memory**: the largest resident set of the command's process.
- **Backup window**: from the freeze to the removal of the point in time, on the changes of `make demo`:
  {day.TOTAL >> 20} MiB in 64 KiB writes with an fsync each, on two disks, one block in twenty rewritten again and
  again, at up to {scene.RATE / MIB:.0f} MiB/s. The backup begins right after the round in which, or before which,
  the last of these blocks was changed: from then on the guest writes the one in twenty alone, at the same rate. That is
  the best case for a head start: a guest that goes on changing other blocks leaves what it changes after the last round
  to the window as well. The peer is the same without a head start (`backup --plain`).
- **Of a libvirt VM**: one domain, with the same disk of files, in turn by Headstart and by {peer.PEER} (`-l full`,
  `-l inc`, `virtnbdrestore`), each with its own defaults: ours encrypts, compresses, checksums and flushes to the
  disk, the peer does none of that. {peer.REWRITTEN_BYTES >> 20} MiB are rewritten before each incremental backup; the
  restore, of both backups, makes a qcow2. virtnbdbackup refuses a domain that has others' checkpoints, so each takes
  its own out after its turn. The window is at the end of a day: {day.TOTAL >> 20} MiB changed as above, on this one
  disk, with a round of `headstart precopy`, read by the host, every {day.ROUND_EVERY:.0f} s at most; the peer's is how
  long libvirt's job stood, as libvirt tells, which leaves out the freezing before it.
- **Beside restic and borg**, as Debian has them and with their own defaults: they read a raw image of the same disk
  from the page cache, which is less work than to read a running VM's. All three compress, encrypt and find duplicates.
  `verify` is `restic check --read-data`, `borg check --verify-data`, `headstart verify`; restores go to a raw file,
  which ours and borg's leave sparse, as does restic's from 0.15 on; an older one writes the zeroes of the disk, too.
- **Served over NBD**: nbdcopy from `headstart serve` into a sparse raw file, and into nothing (the server alone),
  against nbdcopy from nbdkit's file plugin with the same disk as a raw file in the page cache. From S3: SeaweedFS
  behind an emulated line; the peer is the time that the stored bytes need on the line, without any protocol.
  The server is ready when the clock starts: from S3, manifest and index have come over the line before.
- **Read in the guest and sent**: the agent reads a disk of {inside.SIZE >> 20} MiB from its beginning to its end, past
  the guest's cache, and the host takes it; against `dd` from the same disk into the same virtio-serial port, which
  neither frames nor checks anything. Processor time is that of the one process in the guest. The guest is emulated
  (TCG), which makes what runs in it many times slower than on a real processor, Python more than the kernel.
- **fsync of the guest, p99**: 16 KiB writes with an fsync each, at up to {inside.RATE / MIB:.0f} MiB/s on another disk
  of the same guest, {inside.SPAN_SECONDS:.0f} s each, in turn: idle, idle again (the difference is the noise), while
  the agent copies as fast as it can at its priority, while the host copies over NBD as fast as it can.
- **fsync p99 beside copying, and pace**: 16 KiB writes with an fsync each, at up to {peace.RATE / MIB:.1f} MiB/s, in
  spans of {peace.SPAN_SECONDS:.0f} s: idle, idle again, while blocks are copied at an ordered
  {peace.PACE / 1e6:.1f} MB/s; medians of ratios within such threes. The larger of two idle spans to the smaller is the
  noise. It is above 1 by its making, well above where chance alone decides, while the ratio of copying to idle may fall
  below 1: the two cannot be held against each other. The second idle span to the first can.
- **Boot to the agent**: a Debian guest from the start of `headstart boot` to the first answer of qemu-guest-agent,
  against QEMU alone on the same disk as a local image.

Targets: full backup at most 2.0 times nbdcopy and half of the time of the faster of restic and borg, stored size at
most 1.15 of the smaller, restore to raw at most 1.25 times nbdcopy, verify no slower than restore, nbdcopy of a
served disk into a file at most 2.0 times that of a raw file, and from S3 at most 1.25 times the line's time, peak
memory at most 300 MiB, the window at most a tenth of the plain.
Boot to the agent at most 1.5 times as long as from the local disk.
Of a libvirt VM: full backup at most half of virtnbdbackup's time, the window at most a twentieth of its job's.
These are aims.
"""

#: Those that are ratios: how a figure's name begins, and its peer's, and the most that its ratio should be.
_AIMS = (
    ("full backup", "nbdcopy", 2.0),
    ("full backup", "restic", 0.5),
    ("full backup", "borg", 0.5),
    ("full backup: bytes stored", "restic", 1.15),
    ("full backup: bytes stored", "borg", 1.15),
    ("restore to raw", "nbdcopy", 1.25),
    ("serve: nbdcopy of the disk into a file", "nbdcopy", 2.0),
    ("serve: nbdcopy of [0-9]+ MiB from S3", "the line", 1.25),
    ("backup window", "backup --plain", 0.1),
    ("boot to the agent", "the same", 1.5),
    ("full backup of a libvirt VM", "virtnbdbackup", 0.5),
    ("backup window of a libvirt VM", "virtnbdbackup", 0.05),
)


def written(figures: Sequence[Figure], machine: Mapping[str, str]) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in machine.items())
    return f"{_INTRODUCTION}{table(figures)}\n{_MEANING}{_missed(figures)}\n## Machine and versions\n{facts}"


def missed(figures: Sequence[Figure]) -> Iterator[str]:
    """Of the aims that are ratios."""
    for name, beside, most in _AIMS:
        for each in figures:
            named = re.fullmatch(rf"{name}(,? .*)?", each.name) and each.peer_name.startswith(beside)
            if named and round(each.ratio, 2) > most:
                yield f"{each.name}, beside {each.peer_name}: {each.ratio:.2f}, and not {most}"


def _missed(figures: Sequence[Figure]) -> str:
    lines = "".join(f"- {each}\n" for each in missed(figures))
    return f"This run missed:\n\n{lines}" if lines else "This run missed none that is a ratio.\n"


def table(figures: Sequence[Figure]) -> str:
    """In Markdown."""
    rows = ["| | ours | peer | ratio | peer is | runs |", "|---|---:|---:|---:|---|---:|"]
    rows += [
        f"| {each.name} | {_value(each.ours, each.unit)} | {_value(each.peer, each.unit)} "
        f"| {each.ratio:.2f} | {each.peer_name} | {each.runs} |"
        for each in figures
    ]
    return "\n".join(rows)


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / MIB:.1f} MiB"
    return f"{value:.2f} {unit}"
