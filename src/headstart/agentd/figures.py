"""How busy the guest is: counters of the kernel as they are now; whoever asks makes rates of them."""

import os
import time
from typing import Any, Callable, Dict, List, Optional

from headstart.agentd import usage
from headstart.agentd.work import Work

#: proc(5), /proc/stat, in ticks.
_CPU = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
#: Linux, Documentation/block/stat.rst. Sectors there are of 512 bytes, times in milliseconds.
_DISK = {"reads": 0, "read_sectors": 2, "read_ms": 3, "writes": 4, "written_sectors": 6, "write_ms": 7, "busy_ms": 9}
#: Since Linux 5.5.
_FLUSHES = 16
_SECTOR = 512
#: Linux, Documentation/ABI/testing/sysfs-class-net: the unit of a speed, in bytes.
_MEGABIT = 1000 * 1000 // 8
_PRESSURES = ("cpu", "io", "memory")
#: More often would cost more than it tells.
LEAST_SECONDS = 0.2


class Watching(Work):
    """Figures again and again until it is cancelled, the first at once."""

    def __init__(self, seconds: float, tell: Callable[[Dict[str, Any]], None]) -> None:
        self._seconds = max(LEAST_SECONDS, seconds)
        self._tell = tell
        self.due: Optional[float] = time.monotonic()

    def step(self, now: float) -> None:
        if self.due is not None and now >= self.due:
            self._tell(figures())
            # After a pause of the whole guest none is made up for.
            self.due = now + self._seconds


def figures() -> Dict[str, Any]:
    """``time`` is the guest's monotonic clock, in seconds; a part that the kernel does not tell is left out."""
    found: Dict[str, Any] = {"time": time.monotonic(), "ticks": os.sysconf("SC_CLK_TCK"), "cpus": os.cpu_count() or 1}
    for name, read in (("cpu", _cpu), ("memory", _memory), ("disks", _disks), ("network", _network)):
        told = _told(read)
        if told is not None:
            found[name] = told
    found["own"] = usage.OWN.told()
    found["pressure"] = {name: told for name in _PRESSURES for told in [_pressure(name)] if told}
    return found


def _told(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError, IndexError):
        return None


def _lines(path: str) -> List[str]:
    with open(path) as file:
        return file.read().splitlines()


def _cpu() -> Dict[str, int]:
    return dict(zip(_CPU, map(int, _lines("/proc/stat")[0].split()[1:])))


def _memory() -> Dict[str, int]:
    """Bytes."""
    table = dict(line.split(":", 1) for line in _lines("/proc/meminfo"))
    return {
        name: int(table[key].split()[0]) * 1024 for name, key in (("total", "MemTotal"), ("available", "MemAvailable"))
        if key in table
    }  # fmt: skip


def _disks() -> Dict[str, Dict[str, int]]:
    """Whole disks only: what lies on them would count twice."""
    found = {}
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists("/sys/block/%s/device" % name):
            fields = [int(field) for field in _lines("/sys/block/%s/stat" % name)[0].split()]
            told = {key: fields[place] for key, place in _DISK.items()}
            told["read_bytes"] = told.pop("read_sectors") * _SECTOR
            told["written_bytes"] = told.pop("written_sectors") * _SECTOR
            if len(fields) > _FLUSHES:
                told["flush_ms"] = fields[_FLUSHES]
            found[name] = told
    return found


def _network() -> Dict[str, int]:
    """Bytes of all interfaces with a device behind them: what goes through bridges and tunnels would count twice.
    ``speed``: bytes a second that those that are up carry, where each of them tells."""
    received = sent = speed = 0
    known = True
    for line in _lines("/proc/net/dev")[2:]:
        name, _, rest = line.partition(":")
        folder = "/sys/class/net/" + name.strip()
        if os.path.exists(folder + "/device"):
            fields = rest.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
            if _lines(folder + "/operstate") != ["down"]:
                told = _speed(folder)
                speed, known = speed + told, known and told > 0
    found = {"received": received, "sent": sent}
    return dict(found, speed=speed) if known and speed else found


def _speed(folder: str) -> int:
    """0 where the kernel knows none, as of most virtual cards."""
    try:
        return max(0, int(_lines(folder + "/speed")[0])) * _MEGABIT
    except (OSError, ValueError, IndexError):
        return 0


def _pressure(name: str) -> Dict[str, float]:
    """Linux, Documentation/accounting/psi.rst: ``some`` over ten seconds in per cent, and in all in microseconds."""
    try:
        fields = dict(word.split("=") for word in _lines("/proc/pressure/" + name)[0].split()[1:])
        return {"avg10": float(fields["avg10"]), "total": int(fields["total"])}
    except (OSError, ValueError, KeyError, IndexError):
        return {}
