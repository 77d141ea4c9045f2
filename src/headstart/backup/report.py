"""What a run came to, as values; their JSON is a contract (docs/cli.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headstart.state.values import AuditReport


@dataclass(frozen=True, slots=True)
class PrecopyReport:
    """``remaining_bytes``: what this round put off or did not come to. ``halted``: why, if the load ended it."""

    vm: str
    round: int
    transport: str
    identified_bytes: int
    copied_bytes: int
    stored_bytes: int
    remaining_bytes: int
    identify_seconds: float
    seconds: float
    notes: tuple[str, ...] = ()
    halted: str = ""

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DiskReport:
    """``changed_bytes``: in the base bitmap; ``precopied_bytes``: of the draft and still valid;
    ``residue_bytes``: read inside the window; ``compared``: read whole, because of ``reason``. ``tracking``: how its
    changes are learned (``tracking.choice.Way``), because of ``tracking_reason``."""

    name: str
    size: int
    changed_bytes: int
    precopied_bytes: int
    residue_bytes: int
    stored_bytes: int
    compared: bool
    reason: str
    tracking: str = ""
    tracking_reason: str = ""
    #: Of volumes that the backup was made without; they are zeroes in it.
    excluded_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """What lies on the disks, and where in it the changes are. ``mounted``: as the guest's fstab says. Of it
    ``excluded_bytes`` are left out; what of these was written is in no other number."""

    name: str
    content: str
    label: str
    mounted: tuple[str, ...]
    size: int
    changed_bytes: int
    residue_bytes: int
    excluded_bytes: int


@dataclass(frozen=True, slots=True)
class BackupReport:
    """``created``: the point in time, seconds since 1970."""

    snapshot: str
    vm: str
    created: float
    base: str | None
    consistency: str
    freeze_seconds: float
    pause_seconds: float
    window_seconds: float
    seconds: float
    audit: AuditReport
    disks: tuple[DiskReport, ...]
    #: What was left out or went wrong beside the backup itself; it makes the exit status 3.
    failures: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    volumes: tuple[VolumeReport, ...] = field(default=())

    def json(self) -> dict[str, Any]:
        return asdict(self)


def backup_of(told: Mapping[str, Any]) -> BackupReport:
    """What ``BackupReport.json`` told, after a way through JSON."""
    parts = {
        "audit": AuditReport(**told["audit"]),
        "disks": tuple(DiskReport(**disk) for disk in told["disks"]),
        "failures": tuple(told["failures"]),
        "notes": tuple(told["notes"]),
        "volumes": tuple(
            VolumeReport(**{**each, "mounted": tuple(each["mounted"])}) for each in told.get("volumes", ())
        ),
    }
    return BackupReport(**{**told, **parts})
