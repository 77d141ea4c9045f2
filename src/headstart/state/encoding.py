"""Values of the state as they stand in the database."""

from __future__ import annotations

import dataclasses
import json

from headstart.blocks import Blocks
from headstart.hypervisor.contract import ImageFile
from headstart.state.values import Facts


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
