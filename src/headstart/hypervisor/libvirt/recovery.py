"""Putting right what a dead run of ours left in a domain, where its watch died too.

Checkpoints stay: they are believed or removed by the tracking layer, which knows their names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import libvirt

from headstart import errors
from headstart.hypervisor.libvirt import jobs
from headstart.hypervisor.libvirt.place import Place
from headstart.wire.libvirt import Domain


def recover(domain: Domain, place: Place) -> tuple[str, ...]:
    """Returns a sentence for each thing done."""
    done = [*_job(domain, place), *_started(domain, place)]
    files = place.leftovers()
    if done or files or _may_be_frozen(domain, place):
        done += _frozen(domain, place)
    place.close()
    return (*done, *(f"the file {path} of a dead run was removed" for path in files))


def _job(domain: Domain, place: Place) -> Iterator[str]:
    if jobs.end(domain, place):
        yield "the backup job of a dead run was ended"


def _started(domain: Domain, place: Place) -> Iterator[str]:
    """Only the very start that was ours, and whose guest nobody let run since."""
    try:
        noted = place.started.read_text()
    except FileNotFoundError:
        return
    if noted == identity(domain) and shut_off(domain):
        yield "the VM, started by a dead run without its guest, was shut off again"
    place.started.unlink(missing_ok=True)


def identity(domain: Domain) -> str:
    """Of one run of the domain: libvirt counts them, and the host's start tells its counts apart."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return f"{boot} {domain.ask(lambda running: running.ID())}"


def note(path: Path, domain: Domain) -> None:
    """That something of ours stands in this run of the domain. Raises ``NoSpace``."""
    try:
        path.write_text(identity(domain))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise errors.NoSpace(
            f"{path}, by which a later run would know what this one did, cannot be written: {error.strerror}. Make"
            " room, or name another local directory with --scratch."
        ) from error


def shut_off(domain: Domain) -> bool:
    """End a domain whose guest does not run; False if it does."""
    if domain.ask(lambda running: running.state())[0] != libvirt.VIR_DOMAIN_PAUSED:
        return False
    with contextlib.suppress(errors.HeadstartError):
        domain.order(lambda running: running.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL))
    return True


def _may_be_frozen(domain: Domain, place: Place) -> bool:
    """A guest that was started since is not."""
    try:
        noted = place.frozen.read_text()
    except FileNotFoundError:
        return False
    if noted == identity(domain):
        return True
    place.frozen.unlink(missing_ok=True)
    return False


def _frozen(domain: Domain, place: Place) -> Iterator[str]:
    """While qga does not answer, it is left to the next run."""
    with contextlib.suppress(errors.HeadstartError):
        if domain.order(lambda running: running.fsThaw(None, 0)):
            yield "the guest, frozen by a dead run, was thawed"
        place.frozen.unlink(missing_ok=True)
