"""``headstart boot``: start a VM from a snapshot, at once."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from headstart import errors, plain
from headstart.cli import arguments, bootwords, orders
from headstart.cli.session import Session
from headstart.cli.vm import NAME
from headstart.host import control
from headstart.repository import lease, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore.booting import boot, definition, runplace, settling
from headstart.restore.booting import moving as moves
from headstart.restore.booting.attendance import Attendance, leave
from headstart.restore.booting.boot import Booted, Wanted
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.marks import Marks, untracked
from headstart.restore.booting.settling import Home
from headstart.restore.serving.serving import Source


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "boot", run, "Start a VM from a snapshot, at once.")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="an id, the beginning of one, or NAME@latest")
    parser.add_argument(
        "--name", metavar="NAME", help="of the new VM; with --move-to this host backs it up by this name from then on"
    )
    parser.add_argument(
        "--overlay", metavar="DIR", type=Path, help="keep what the VM writes in DIR, and go on with what is there"
    )
    parser.add_argument("--move-to", metavar="DIR", type=Path, help="move its disks there while it runs, and leave it")
    parser.add_argument(
        "--libvirt", metavar="URI", help="a domain of libvirt's: start it there; usually qemu:///system"
    )
    parser.add_argument("--network", action="store_true", help="connect its network cards as they were")
    parser.add_argument("--memory", metavar="SIZE", type=memory, help="in place of what it had, as 4G")
    parser.add_argument(
        "--definition",
        metavar="FILE",
        type=Path,
        help="a QEMU command line, or libvirt's XML, in place of the snapshot's",
    )


def memory(text: str) -> int:
    """Bytes; ``Usage``."""
    try:
        return definition.memory_of(text)
    except errors.Unsupported:
        raise errors.Usage(f"--memory takes a size, such as 4G, not {text!r}.") from None


def run(session: Session, given: argparse.Namespace) -> None:
    if given.name is not None and not NAME.fullmatch(given.name):
        raise errors.Usage(f"{given.name!r} cannot be the name of a VM: letters, digits, '.', '_' and '-', 64 at most.")
    if given.overlay and given.move_to:
        raise errors.Usage("--overlay keeps what the VM writes, --move-to moves all of it: give one of them.")
    with session.repository() as repo:
        found = snapshot.resolve(repo, given.snapshot)
        with lease.reading_snapshot(repo, "boot", found) as held:
            if not held:
                session.output.note("the repository cannot be written to: do not let this snapshot be forgotten")
            source = Source(repo, session.settings.repository, found, session.settings.cache)
            if given.move_to:
                _move(session, given, source)
            else:
                _attend(session, given, source)


def _wanted(session: Session, given: argparse.Namespace, manifest: Manifest, home: Home | None = None) -> Wanted:
    name = given.name or boot.default_name(manifest)
    own = session.settings.scratch / "boot" / (name if home is None else f"{name}.moving")
    return Wanted(
        name,
        runplace.folder_of(name, os.environ),
        given.overlay.absolute() if given.overlay else own,
        # A VM that is being moved is one that is meant: what it writes outlives a command that is killed.
        kept=given.overlay is not None or home is not None,
        network=given.network,
        memory=given.memory,
        definition=definition_from(given.definition),
        variables=home.variables if home is not None else None,
        # libvirt would end with us also a domain that has moved.
        outlives=home is not None and bool(given.libvirt),
    )


def _how(wanted: Wanted) -> dict[str, Any]:
    """By the names of the options."""
    return {"network": wanted.network, "memory": wanted.memory, "definition": wanted.definition}


def definition_from(path: Path | None) -> str:
    """Its text; empty for None. Raises ``Usage``."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.Usage(f"The definition {path} cannot be read: {error}. Name another file.") from error


def _attend(session: Session, given: argparse.Namespace, source: Source) -> None:
    """Until the VM is off, or Ctrl-C, or it has been moved."""
    begun, manifest = time.monotonic(), source.manifest
    wanted = _wanted(session, given, manifest)
    if given.libvirt:
        from headstart.cli import bootdomain

        bootdomain.attend(session, given, source, wanted)
        return
    with boot.booted(source, wanted) as booted, orders.taken(wanted.folder, manifest.id, _how(wanted)) as asked:
        moving = _Moving(session, given.name, source, booted)
        booted.instance.resume()
        values = _values(manifest, booted) | {"seconds": time.monotonic() - begun}
        session.output.result(values, _told(manifest, booted, wanted))
        _tell(session, booted.notes)
        try:
            moving.attendance.until_the_end(lambda: asked.carry_out(moving.later))
        except KeyboardInterrupt:
            moving.interrupted()
            raise


def _move(session: Session, given: argparse.Namespace, source: Source) -> None:
    manifest, directory = source.manifest, given.move_to.absolute()
    if given.name and not given.libvirt:
        if _asked(session, given, manifest, directory):
            return
        with session.journal() as journal:
            settling.require_free(journal, given.name)
    home = settling.prepared(source.repo, manifest, directory)
    wanted = _wanted(session, given, manifest, home)
    with contextlib.ExitStack() as undoing:
        undoing.callback(settling.clear, home)
        if given.libvirt:
            from headstart.cli import bootdomain

            bootdomain.move(session, given, source, wanted, home, undoing)
            return
        with boot.booted(source, wanted) as booted:
            moving = _Moving(session, given.name, source, booted)
            booted.instance.resume()
            _tell(session, (f"the VM runs, as QEMU process {booted.instance.pid}, and is being moved", *booted.notes))
            try:
                with session.output.progress() as progress:
                    values = moving.to(home, progress, undoing)
            except KeyboardInterrupt:
                moving.interrupted()
                raise
    session.output.result(values, _moved(values))


def _asked(session: Session, given: argparse.Namespace, manifest: Manifest, directory: Path) -> bool:
    """Whether another command has booted this VM, which then moves it."""
    how = {each: value for each, value in _how(_wanted(session, given, manifest)).items() if value}
    try:
        with session.output.progress() as progress:
            values = orders.ask(runplace.folder_of(given.name, os.environ), manifest.id, directory, how, progress)
    except control.Absent:
        return False
    session.output.result(values, _moved(values))
    return True


class _Moving:
    """A booted VM whose guest has not run yet, and its move. With a ``name`` this host backs it up from then on."""

    def __init__(self, session: Session, name: str | None, source: Source, booted: Booted) -> None:
        self._session = session
        self._name = name
        self._source = source
        self._booted = booted
        # What was written before has no mark: then the next backup compares.
        self._marks = self._marked() if name and not booted.overlays.again else None
        self.attendance = Attendance(booted.instance, booted.served, booted.derived.consoles)
        self._hold = Hold(booted.instance)

    def _marked(self) -> Marks:
        """The mark that the next backup stands on, before the guest's first instruction."""
        qmp, images = self._booted.instance.qmp, self._booted.place.images
        found = moves.attachments(qmp)
        with self._session.journal() as journal:
            marks = Marks.new(journal.installation, images)
        marks.begin(qmp, {disk: found[disk].tracked for disk in images})
        return marks

    def later(self, directory: Path, report: moves.Progress) -> dict[str, Any]:
        """Another command asked for it."""
        if self._booted.place.variables is not None:
            raise errors.Unsupported(
                "The VM has UEFI variables, which cannot be moved while it runs. End it, and boot it with --move-to."
            )
        if self._name:
            with self._session.journal() as journal:
                settling.require_free(journal, self._name)
        home = settling.prepared(self._source.repo, self._source.manifest, directory)
        try:
            return self.to(home, report, contextlib.ExitStack())
        except errors.HeadstartError:
            self._after_a_failure()
            raise

    def _after_a_failure(self) -> None:
        """Once the guest goes on, a disk that has gone over has writes that its overlay has not."""
        if not self._hold.gone_over:
            return
        if not self._booted.overlays.kept:
            with contextlib.suppress(errors.HeadstartError):
                self._hold.end()
            return
        _tell(self._session, ("moving the VM failed in the middle: it is ended, and what it wrote is kept",))
        with contextlib.suppress(errors.HeadstartError):
            self._booted.instance.qmp.execute("quit")

    def interrupted(self) -> None:
        """By Ctrl-C, before the VM is ended with us; one that has moved goes on."""
        leave(self._booted.instance, self._hold, kept=self._booted.overlays.kept)

    def to(self, home: Home, report: moves.Progress, undoing: contextlib.ExitStack) -> dict[str, Any]:
        """The VM moves, and is let go. From then on nothing is undone."""
        begun, manifest = time.monotonic(), self._source.manifest

        def moved() -> None:
            undoing.pop_all()
            self._booted.instance.let_go()
            self._booted.overlays.discard()

        self._hold = Hold(self._booted.instance)
        moves.move(self._booted.instance.qmp, self._hold, home.images, self._marks, report, self.attendance.look, moved)
        notes = settling.write_start(self._booted, manifest, home)
        if self._name:
            self._adopt(self._name)
        return _values(manifest, self._booted) | {
            "disks": [{"name": name, "path": str(path)} for name, path in home.images.items()],
            "start": str(home.start),
            "added": self._name,
            "seconds": time.monotonic() - begun,
            "notes": [*self._booted.notes, *notes],
        }

    def _adopt(self, name: str) -> None:
        manifest, found = self._source.manifest, moves.attachments(self._booted.instance.qmp)
        disks = [found[disk.name].disk for disk in manifest.disks]
        tracked = self._marks.tracked(manifest, disks) if self._marks else untracked(manifest, disks)
        with self._session.journal() as journal, journal.lock(name, "boot"):
            journal.adopt(settling.entry(name, self._booted.derived), tracked)


def _tell(session: Session, notes: tuple[str, ...]) -> None:
    for note in notes:
        session.output.note(note)


def _values(manifest: Manifest, booted: Booted) -> dict[str, Any]:
    derived = booted.derived
    return {
        "vm": manifest.vm,
        "snapshot": manifest.id,
        "name": booted.place.name,
        "pid": booted.instance.pid,
        "monitor": str(derived.monitor),
        "agent": str(derived.agent) if derived.agent else None,
        "qga": str(derived.qga) if derived.qga else None,
        "screen": str(derived.screen) if derived.screen else None,
        "consoles": [str(path) for path in derived.consoles],
        "sockets": {name: str(path) for name, path in derived.sockets.items()},
        "network": booted.place.network,
        "notes": list(booted.notes),
    }


def _told(manifest: Manifest, booted: Booted, wanted: Wanted) -> str:
    derived = booted.derived
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created))
    lines = [f"{plain.line(manifest.vm)} as of {moment} runs, as QEMU process {booted.instance.pid}."]
    lines += [f"monitor  {derived.monitor}"]
    lines += [f"screen   {derived.screen} (VNC)"] if derived.screen else []
    lines += [f"console  {path}" for path in derived.consoles]
    return "\n".join([*lines, *bootwords.conditions(wanted)])


def _moved(values: dict[str, Any]) -> str:
    runs = f"The VM runs on, as QEMU process {values['pid']}, and needs the repository no longer."
    again = f"{values['start']} starts it when it has been off."
    return bootwords.moved(values, f"{runs} {again}", f"headstart vm add NAME --qmp {values['monitor']}")
