"""Somebody else's work on a domain, which ours has to wait for."""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt

from headstart import errors
from headstart.wire.libvirt import Domain, Failed

#: Foreign jobs often end by themselves; a backup at a given time cannot wait for long. Longer than the 30 s for which
#: libvirt may go on to tell of a job that is over (docs/libvirt.md).
PATIENCE_SECONDS = 45.0
#: Between looks, unless an event says that something ended.
LOOK_SECONDS = 1.0

_JOBS = {
    libvirt.VIR_DOMAIN_JOB_OPERATION_START: "it is being started",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE: "it is being saved",
    libvirt.VIR_DOMAIN_JOB_OPERATION_RESTORE: "it is being restored",
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: "it is being migrated to this host",
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: "it is being migrated to another host",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT: "a snapshot of it is being made",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT: "a snapshot of it is being put back",
    libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP: "its memory is being dumped",
    libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP: "a backup job of another tool runs",
}
_BLOCK_JOBS = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: "pull",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: "copy",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: "commit",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: "commit",
}


def wait_until_clear(domain: Domain, targets: Sequence[str]) -> None:
    """Raises ``Busy`` with what it is, if that does not end by itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        mark = domain.mark
        found = find(domain, targets)
        if not found:
            return
        if time.monotonic() >= deadline:
            raise errors.Busy(
                f"Somebody else works on the VM: {found}. Wait until that is done, or end it, and try again.",
                obstacle=found,
            )
        domain.wait_event(None, LOOK_SECONDS, mark)


def find(domain: Domain, targets: Sequence[str]) -> str:
    job = _job(_stats(domain))
    if job:
        return job
    for target in targets:
        # Unplugged a moment ago: there is no job either.
        with contextlib.suppress(Failed):
            job = _block_job(target, domain.ask(operator.methodcaller("blockJobInfo", target, 0)))
        if job:
            return job
    return ""


def _stats(domain: Domain) -> Mapping[str, Any]:
    """Of a job that begins or ends just now libvirt 9 can tell nothing ("backup job data missing")."""
    try:
        told: Mapping[str, Any] = domain.ask(lambda running: running.jobStats())
    except Failed as error:
        if error.code != libvirt.VIR_ERR_INTERNAL_ERROR:
            raise
        return {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED}
    return told


def _job(stats: Mapping[str, Any]) -> str:
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return ""
    return _JOBS.get(stats.get("operation", 0), "a job runs")


def _block_job(target: str, info: Mapping[str, Any]) -> str:
    if not info:
        return ""
    share = 100 * info.get("cur", 0) // max(1, info.get("end", 0))
    return f"a block {_BLOCK_JOBS.get(info.get('type', 0), 'job')} of disk {target} is at {share} %"
