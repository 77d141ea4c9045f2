"""docs/scale.md, written by ``python -m bench.scale``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.units import MIB

_INTRODUCTION = """\
# Scale

Written by `python -m bench.scale`; the same figures are in `build/bench/scale.json`. The seconds are this machine's,
which had other work to do as well.

How many hosts and VMs a server carries, and what comes next at 100,000 VMs, is in [fleet.md](fleet.md).

## The index: 100 million chunks

A made-up repository in a local directory: index objects as a writer makes them (131,072 chunks each), and packs of the
right length without content, 512 chunks of 64 KiB in each. Each row is a process: the first has no cache and reads
every index object, the second has the cache of the first. *Loading* is from the opened repository to the first answer.
Then 200,000 chunks that are there, at random places, and 200,000 that are not, are looked up in batches of 16
(`missing`); *again*: the same that are there, once more.

"""

_INDEX_MEANING = """
*Own memory* is what the kernel cannot take back at any time (`RssAnon`); 80 MiB of it are what turns the password into
a key, once, when the repository is opened. *Resident* (`VmHWM`) counts the pages of the cache that were touched, too:
they are the kernel's page cache. What that does not hold is read from the disk, a page for each chunk and one more for
one that is there: then it is the disk's latency that counts.

"""

_DISKS = """\
## Small changes of large disks

`headstart backup NAME` as a whole command, of a running QEMU (its guest never starts) with one qcow2 disk, empty but
for what is written: {changed} GiB, in pieces of 1 MiB that are spread over the whole disk, each time with other content
at the same places. Then a backup of nothing that changed. Medians of {runs}; memory is the largest resident set of all.
In a repository with 100 million chunks, a directory with 195,000 packs is listed twice for each backup, to see that
none is lost, and the memory is mostly pages of the mapped cache.

"""


def written(found: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in machine.items())
    index = _index(found["index"])
    disks = "".join(map(_disks, found["disks"]))
    introduction = _DISKS.format(changed=found["changed_gib"], runs=found["runs"])
    return f"{_INTRODUCTION}{index}{_INDEX_MEANING}{introduction}{disks}## Machine and versions\n{facts}"


def _index(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| chunks | | loading | own memory | resident | a chunk that is there | again | one that is not | cache |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        for name, title in (("first", "no cache"), ("again", "cache")):
            each = row[name]
            lines.append(
                f"| {each['chunks'] / 1e6:.0f} million | {title} | {each['load_seconds']:.2f} s "
                f"| {each['peak_anonymous'] / MIB:.0f} MiB | {each['peak_resident'] / MIB:.0f} MiB "
                f"| {each['hit_microseconds']:.1f} µs | {each['hit_again_microseconds']:.1f} µs "
                f"| {each['miss_microseconds']:.1f} µs | {row['cache_bytes'] / MIB:,.0f} MiB |"
            )
    return "\n".join(lines) + "\n"


def _disks(found: Mapping[str, Any]) -> str:
    lines = [f"{found['title']}:\n", "| | 10 GiB | 6 TiB | ratio |", "|---|---:|---:|---:|"]
    for what, title in (("changed", "1 GiB changed"), ("empty", "nothing changed")):
        small, large = found[f"10 GiB, {what}"], found[f"6 TiB, {what}"]
        for key, name in (("seconds", "time"), ("cpu_seconds", "processor time")):
            ratio = large[key] / small[key]
            lines.append(f"| {title}: {name} | {small[key]:.2f} s | {large[key]:.2f} s | {ratio:.2f} |")
        peaks = [each["peak_bytes"] / MIB for each in (small, large)]
        lines.append(f"| {title}: memory | {peaks[0]:.0f} MiB | {peaks[1]:.0f} MiB | {peaks[1] / peaks[0]:.2f} |")
    return "\n".join(lines) + "\n\n"
