"""Values of the state as they stand in the database."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from headstart.blocks import Blocks
from headstart.hypervisor.inventory import ImageFile
from headstart.repository import manifest
from headstart.state.values import AuditReport, CompletedDisk, Completion, Domain, Facts, Tracked, Vm
from headstart.tracking.choice import Wish

#: A dataclass.
Value = TypeVar("Value", AuditReport, CompletedDisk, Completion)


def facts_to_text(facts: Facts) -> str:
    return json.dumps(dataclasses.asdict(facts), sort_keys=True)


def facts_from_text(text: str) -> Facts:
    values = json.loads(text)
    layers = tuple(ImageFile(**layer) for layer in values["layers"])
    return Facts(values["size"], values["format"], layers)


def blocks_to_bytes(blocks: Blocks) -> bytes:
    """The portable Roaring format."""
    packed = blocks.copy()
    packed.run_optimize()
    return bytes(packed.serialize())


def blocks_from_bytes(data: bytes) -> Blocks:
    return Blocks.deserialize(data)


def row_of_vm(vm: Vm) -> Mapping[str, Any]:
    """By column of the table ``vms``, in its order."""
    return {
        "name": vm.name,
        "monitor": str(vm.monitor or ""),
        "agent": vm.agent or None,
        "qga": str(vm.qga) if vm.qga else None,
        "excluded": json.dumps(vm.excluded),
        "definition": vm.definition,
        "added": vm.added or time.time(),
        "uri": vm.domain.uri if vm.domain else None,
        "domain": vm.domain.name if vm.domain else None,
        "volumes": json.dumps(vm.volumes),
        "track": vm.track.value,
    }


def vm_of_row(row: Sequence[Any]) -> Vm:
    name, monitor, agent, qga, excluded, definition, added, uri, domain, volumes, track = row
    return Vm(
        name,
        Path(monitor) if monitor else None,
        agent or "",
        Path(qga) if qga else None,
        tuple(json.loads(excluded)),
        definition,
        added,
        domain=Domain(uri, domain) if uri else None,
        track=Wish(track),
        volumes=tuple(json.loads(volumes)),
    )


def row_of_disk(vm: str, disk: Tracked) -> Mapping[str, Any]:
    """By column of the table ``disks``, in its order."""
    return {
        "vm": vm,
        "disk": disk.name,
        "nonce": disk.nonce,
        "facts": facts_to_text(disk.facts),
        "base": disk.base,
        "snapshot": disk.snapshot,
        "round": disk.round,
        "entire": blocks_to_bytes(disk.entire),
        "owed": blocks_to_bytes(disk.owed),
        "reason": disk.reason,
        "excluded": blocks_to_bytes(disk.excluded) if disk.excluded else None,
    }


def disk_of_row(row: Sequence[Any]) -> Tracked:
    _, name, nonce, facts, base, snapshot, round_id, entire, owed, reason, excluded = row
    return Tracked(
        name,
        nonce,
        facts_from_text(facts),
        base,
        snapshot,
        round_id,
        blocks_from_bytes(entire),
        blocks_from_bytes(owed),
        reason,
        Blocks() if excluded is None else blocks_from_bytes(excluded),
    )


def completion_to_text(completion: Completion) -> str:
    """All of it but the id."""
    told = dataclasses.asdict(completion)
    del told["id"]
    return json.dumps(told)


def completion_from_text(id_: str, text: str) -> Completion:
    """Also of other versions: what an older one did not know is not so, what a newer one adds is passed over."""
    told = {"off": False, **json.loads(text)}
    return _value(
        Completion,
        told
        | {
            "id": id_,
            "audit": _value(AuditReport, told["audit"]),
            "disks": {name: _completed(disk) for name, disk in told["disks"].items()},
            "files": tuple(told["files"]),
        },
    )


def _completed(told: Mapping[str, Any]) -> CompletedDisk:
    return _value(CompletedDisk, {**told, "excluded": manifest.excluded_of(told.get("excluded", []))})


def _value(kind: type[Value], told: Mapping[str, Any]) -> Value:
    return kind(**{name: told[name] for name in kind.__dataclass_fields__ if name in told})
