"""``headstart boot --libvirt URI``: the same for a domain of libvirt's."""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any
from xml.etree import ElementTree

from headstart import errors, plain
from headstart.cli import bootwords
from headstart.cli.session import Session
from headstart.hypervisor.libvirt import inventory
from headstart.repository.manifest import Manifest
from headstart.restore.booting import domainboot, settling
from headstart.restore.booting.attendance import Attendance, leave
from headstart.restore.booting.boot import Wanted
from headstart.restore.booting.domainboot import BootedDomain
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.marks import Marks, untracked
from headstart.restore.booting.settling import Home
from headstart.restore.serving.serving import Source
from headstart.state.values import Domain, Vm


def attend(session: Session, given: argparse.Namespace, source: Source, wanted: Wanted) -> None:
    begun = time.monotonic()
    with domainboot.booted(source, wanted, given.libvirt) as booted:
        booted.instance.resume()
        values = _values(source.manifest, booted, given.libvirt) | {"seconds": time.monotonic() - begun}
        session.output.result(values, _told(values, wanted))
        for note in booted.notes:
            session.output.note(note)
        try:
            Attendance(booted.instance, booted.served, booted.consoles).until_the_end()
        except KeyboardInterrupt:
            leave(booted.instance, Hold(booted.instance), kept=wanted.kept)
            raise


def move(
    session: Session,
    given: argparse.Namespace,
    source: Source,
    wanted: Wanted,
    home: Home,
    undoing: contextlib.ExitStack,
) -> None:
    """Once it has moved, nothing is undone."""
    if given.name:
        _require_free(session, given.name)
    begun, manifest, uri, name = time.monotonic(), source.manifest, given.libvirt, wanted.name
    scratch = session.settings.scratch
    with domainboot.booted(source, wanted, uri) as booted:
        marks = None
        # What was written before has no mark: then the next backup compares.
        if given.name and not booted.overlays.again:
            with session.journal() as journal:
                marks = Marks.new(journal.installation, home.images)
            domainboot.begin(uri, name, marks, scratch)
        booted.instance.resume()
        for note in ("the VM runs, and is being moved", *booted.notes):
            session.output.note(note)
        attendance, hold = Attendance(booted.instance, booted.served, booted.consoles), Hold(booted.instance)

        def moved() -> None:
            undoing.pop_all()
            booted.instance.let_go()
            booted.overlays.discard()

        try:
            with session.output.progress() as progress:
                domainboot.move(booted.instance.domain, hold, home.images, progress, attendance.look, moved)
        except KeyboardInterrupt:
            leave(booted.instance, hold, kept=booted.overlays.kept)
            raise
        domainboot.settle(booted, uri, manifest.disks, home.images)
        if given.name:
            _adopt(session, name, uri, marks, manifest)
        values = _values(manifest, booted, uri) | {
            "disks": [{"name": disk, "path": str(path)} for disk, path in home.images.items()],
            "start": None,
            "added": given.name,
            "seconds": time.monotonic() - begun,
        }
    session.output.result(values, _moved(values))


def _adopt(session: Session, name: str, uri: str, marks: Marks | None, manifest: Manifest) -> None:
    with session.journal() as journal:
        installation = journal.installation
    names = [disk.name for disk in manifest.disks]
    disks, keepsakes = domainboot.described(uri, name, names, installation, session.settings.scratch)
    tracked = marks.tracked(manifest, disks) if marks is not None else untracked(manifest, disks)
    with session.journal() as journal, journal.lock(name, "boot"):
        journal.adopt(Vm(name, domain=Domain(uri, name)), tracked)
        journal.keep(name, keepsakes)


def _require_free(session: Session, name: str) -> None:
    """As ``settling.require_free``, for an entry that may be a domain of the name."""
    with session.journal() as journal:
        known = {vm.name: vm for vm in journal.vms()}.get(name)
        if known is not None and known.domain is None:
            raise errors.Usage(f"VM '{name}' is plain QEMU's here, and the one to be booted is a domain: take another.")
        settling.require_published(journal, name)


def _values(manifest: Manifest, booted: BootedDomain, uri: str) -> dict[str, Any]:
    root = ElementTree.fromstring(booted.instance.domain.ask(lambda each: each.XMLDesc(0)))
    return {
        "vm": manifest.vm,
        "snapshot": manifest.id,
        "name": booted.around.place.name,
        "libvirt": {"uri": uri, "domain": booted.around.place.name},
        "uuid": booted.instance.domain.uuid,
        "sockets": {name: channel.path for name, channel in inventory.channels(root)},
        "network": booted.around.place.network,
        "notes": list(booted.notes),
    }


def _told(values: dict[str, Any], wanted: Wanted) -> str:
    return "\n".join(
        [
            f"{plain.line(values['vm'])} runs as the domain {values['name']}.",
            *bootwords.conditions(wanted),
        ]
    )


def _moved(values: dict[str, Any]) -> str:
    runs = f"The domain {values['name']} runs on, is defined, and needs the repository no longer."
    to_add = f"headstart vm add NAME --libvirt {values['libvirt']['uri']} {values['name']}"
    return bootwords.moved(values, runs, to_add)
