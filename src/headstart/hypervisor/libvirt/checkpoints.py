"""Bitmaps as libvirt has them: each in a checkpoint of its own, of one disk.

A checkpoint and its bitmaps have the same name, and a name of ours tells the disk; so each disk has its own. All of
them go on recording until they are deleted. libvirt keeps the list of checkpoints outside of the images, and loses
it with the domain's definition; then they are defined again from what we kept.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Container, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import libvirt

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import names
from headstart.hypervisor.contract import Action, Bitmap, Remove, Start, Stop
from headstart.hypervisor.libvirt.inventory import Look
from headstart.hypervisor.libvirt.jobs import Jobs, Part
from headstart.wire.libvirt import Domain, Failed

_PLAIN = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
_SIZED = _PLAIN | libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
_AGAIN = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
_FORGET = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
#: Disks of a checkpoint that it has bitmaps on.
_RECORDED = "disks/disk[@checkpoint='bitmap']"


class Checkpoints:
    """``headstart.hypervisor.contract.Bitmaps`` on one look at the domain after the other."""

    def __init__(self, domain: Domain, jobs: Jobs, installation: str, block_size: int) -> None:
        self._domain = domain
        self._jobs = jobs
        self._installation = installation
        self._block_size = block_size

    def all(self, seen: Look) -> dict[str, tuple[Bitmap, ...]]:
        found: dict[str, list[Bitmap]] = {each.disk.name: [] for each in seen.attachments}
        # For the sizes QEMU waits until no request is under way on a disk. Ours are when a job stands, and wait for us
        # to take their answers: neither would go on.
        sized = not self._jobs.standing and self._running()
        for name, text in self._texts(_SIZED if sized else _PLAIN).items():
            for disk in ElementTree.fromstring(text).iterfind(_RECORDED):
                # There libvirt tells how much a sound bitmap holds, and nothing of another one.
                believed = not sized or disk.get("size") is not None
                bitmap = Bitmap(disk.get("bitmap", name), recording=True, believed=believed, persistent=True)
                found.get(disk.get("name", ""), []).append(bitmap)
        return {disk: tuple(each) for disk, each in found.items()}

    def _running(self) -> bool:
        return bool(self._domain.ask(lambda domain: domain.isActive()))

    def _texts(self, flags: int) -> dict[str, str]:
        """The XML of every checkpoint by its name."""

        def told(domain: Any) -> dict[str, str]:
            return {each.getName(): each.getXMLDesc(flags) for each in domain.listAllCheckpoints()}

        return self._domain.ask(told)

    def transact(self, seen: Look, actions: Sequence[Action]) -> None:
        """New ones first; if one fails, those before it are taken back."""
        self._require(seen, actions)
        made: list[Start] = []
        try:
            for action in actions:
                if isinstance(action, Start):
                    self._create(seen, action)
                    made.append(action)
        except BaseException:
            for start in made:
                with contextlib.suppress(errors.HeadstartError):
                    self._delete(start.name)
            raise
        for action in actions:
            if isinstance(action, Remove):
                self._delete(action.name)

    def _require(self, seen: Look, actions: Sequence[Action]) -> None:
        """Everything that is asked for can be done."""
        old = [action for action in actions if isinstance(action, Stop | Remove)]
        for action in actions:
            seen.attachment(action.disk)
        there = set(self._texts(_PLAIN)) if old else set()
        for action in old:
            if action.name not in there:
                raise errors.HeadstartError(f"There is no checkpoint '{action.name}' of disk {action.disk}.")

    def _create(self, seen: Look, start: Start) -> None:
        text = _description(start.name, start.disk, seen.targets)
        try:
            self._domain.order(lambda domain: domain.checkpointCreateXML(text, 0))
        except errors.Unreachable:
            # The daemon was restarted meanwhile: it knows whether it was done before that.
            if start.name not in self._texts(_PLAIN):
                raise

    def _delete(self, name: str) -> None:
        """A checkpoint without its bitmap, or with one that is inconsistent, is forgotten: it cannot be deleted. One
        that only cannot be deleted now stays: its bitmap would go on recording, and nobody know of it."""

        def delete(domain: Any) -> None:
            checkpoint = domain.checkpointLookupByName(name)
            try:
                checkpoint.delete(0)
            except libvirt.libvirtError as error:
                code = error.get_error_code()
                missing = code == libvirt.VIR_ERR_INTERNAL_ERROR and self._is_unsound(checkpoint)
                if not missing and code != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                    raise
                checkpoint.delete(_FORGET)

        try:
            self._domain.ask(delete)
        except Failed as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
                raise

    def _is_unsound(self, checkpoint: Any) -> bool:
        """For certain: libvirt can tell how much a bitmap holds, and does not of this one."""
        if self._jobs.standing:
            return False
        try:
            described = ElementTree.fromstring(checkpoint.getXMLDesc(_SIZED))
        except libvirt.libvirtError:
            return False
        return all(disk.get("size") is None for disk in described.iterfind(_RECORDED))

    def foreign(self) -> list[str]:
        """Names of checkpoints that are nobody's of ours."""
        return [name for name in self._texts(_PLAIN) if not self._is_ours(name)]

    def clear(self, disks: Container[str]) -> None:
        """Delete ours of these disks."""
        for name, text in self._texts(_PLAIN).items():
            of = ElementTree.fromstring(text).iterfind(_RECORDED)
            if self._is_ours(name) and any(each.get("name") in disks for each in of):
                self._delete(name)

    # -- what they hold

    def recorded(self, seen: Look, tracks: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        """A job tells one bitmap of each disk: as many jobs as one disk has bitmaps to be read."""
        found: dict[str, dict[str, Blocks]] = {disk: {} for disk in tracks}
        for number in range(max(map(len, tracks.values()), default=0)):
            chosen = {disk: each[number] for disk, each in tracks.items() if number < len(each)}
            parts = [Part(disk, seen.attachment(disk).disk.size, name) for disk, name in chosen.items()]
            with self._jobs.run(seen.targets, parts, {}) as job:
                for disk, name in chosen.items():
                    found[disk][name] = job.recorded(disk, self._block_size)
                job.check()
        return found

    # -- finding them again

    def keepsakes(self) -> dict[str, str]:
        """Our checkpoints as libvirt describes them."""
        return {name: text for name, text in self._texts(_PLAIN).items() if self._is_ours(name)}

    def _is_ours(self, name: str) -> bool:
        track = names.parse(name)
        return track is not None and track.installation == self._installation

    def reclaim(self, kept: Mapping[str, str]) -> list[str]:
        """Those that libvirt forgot and whose bitmaps are there are known to it again; returns their names."""
        there = self._texts(_PLAIN)
        again = []
        for name, text in sorted(kept.items(), key=lambda each: _created(each[1])):
            # A bitmap that is gone with its checkpoint is told by its absence.
            with contextlib.suppress(Failed, ElementTree.ParseError):
                if name not in there and self._is_ours(name):
                    described = _without_parent(text)
                    self._domain.ask(operator.methodcaller("checkpointCreateXML", described, _AGAIN))
                    again.append(name)
        return again


def _description(name: str, disk: str, targets: Sequence[str]) -> str:
    """XML of libvirt's formatcheckpoint."""
    root = ElementTree.Element("domaincheckpoint")
    ElementTree.SubElement(root, "name").text = name
    ElementTree.SubElement(root, "description").text = "Headstart: what changed since; headstart vm release removes it"
    disks = ElementTree.SubElement(root, "disks")
    for target in targets:
        ElementTree.SubElement(disks, "disk", name=target, checkpoint="bitmap" if target == disk else "no")
    return ElementTree.tostring(root, encoding="unicode")


def _created(text: str) -> int:
    with contextlib.suppress(ElementTree.ParseError, ValueError):
        return int(ElementTree.fromstring(text).findtext("creationTime", "0"))
    return 0


def _without_parent(text: str) -> str:
    """The one before it may be gone; each records for itself."""
    root = ElementTree.fromstring(text)
    for parent in root.findall("parent"):
        root.remove(parent)
    return ElementTree.tostring(root, encoding="unicode")
