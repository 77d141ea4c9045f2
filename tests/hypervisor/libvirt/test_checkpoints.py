"""Which checkpoints are forgotten where libvirt does not delete them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import libvirt
import pytest

from headstart.hypervisor.libvirt.checkpoints import Checkpoints
from headstart.wire.libvirt import Failed, in_our_words

NAME = "headstart-0123abcd-base-00-00"
DISK = f"<disk name='vda' checkpoint='bitmap' bitmap='{NAME}' %s/><disk name='vdb' checkpoint='no'/>"
FORGOTTEN = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY


def error(code: int) -> libvirt.libvirtError:
    made = libvirt.libvirtError("refused")
    made.err = (code, 0, "refused", 0, "", None, None, 0, 0)
    return made


@dataclass
class Simulated:
    """A domain with one checkpoint, which is not deleted, and its jobs. ``size``: as libvirt tells its bitmap's."""

    code: int
    size: str | None
    standing: bool = False
    deleted: list[int] = field(default_factory=list)

    def ask(self, question: Callable[[Any], object]) -> object:
        try:
            return question(self)
        except libvirt.libvirtError as failed:
            raise in_our_words(failed) from failed

    def checkpointLookupByName(self, name: str) -> Simulated:  # noqa: N802
        assert name == NAME
        return self

    def delete(self, flags: int) -> None:
        if not flags:
            raise error(self.code)
        self.deleted.append(flags)

    def getXMLDesc(self, flags: int) -> str:  # noqa: N802
        if self.size is None:
            raise error(libvirt.VIR_ERR_INTERNAL_ERROR)
        assert flags & libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE and not self.standing
        return f"<domaincheckpoint><disks>{DISK % self.size}</disks></domaincheckpoint>"


def delete(domain: Simulated) -> None:
    Checkpoints(domain, domain, "0123abcd", 65536)._delete(NAME)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "domain",
    [Simulated(libvirt.VIR_ERR_INTERNAL_ERROR, ""), Simulated(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, None)],
)
def test_one_whose_bitmap_is_gone_or_inconsistent(domain: Simulated) -> None:
    delete(domain)
    assert domain.deleted == [FORGOTTEN]


@pytest.mark.parametrize(
    "domain",
    [
        Simulated(libvirt.VIR_ERR_INTERNAL_ERROR, "size='65536'"),
        Simulated(libvirt.VIR_ERR_INTERNAL_ERROR, None),
        Simulated(libvirt.VIR_ERR_INTERNAL_ERROR, "", standing=True),
        Simulated(libvirt.VIR_ERR_OPERATION_INVALID, ""),
    ],
)
def test_one_whose_bitmap_may_record_stays(domain: Simulated) -> None:
    """It is in use by another operation, say; nobody would see it any longer."""
    with pytest.raises(Failed):
        delete(domain)
    assert domain.deleted == []


def test_one_that_is_gone_is_deleted() -> None:
    delete(Simulated(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, None))
