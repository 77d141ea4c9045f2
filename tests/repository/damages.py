"""A repository with objects of every class, and damages to draw from."""

from __future__ import annotations

import random

from tests.repository import aged

STORE, MANIFESTS, REMEMBERED = aged.build()
OBJECTS = {name: STORE.read(name) for name, _ in sorted(STORE.list(""))}
CLASSES = sorted({name.partition("/")[0] for name in OBJECTS})
WAYS = ("flip", "cut", "swap", "replay", "missing")


def draw(source: random.Random) -> tuple[str, str, dict[str, bytes | None]]:
    """Way, class, and what stands under the names of the damaged objects afterwards; each differs from what was."""
    way, kind = source.choice(WAYS), source.choice(CLASSES)
    of_kind = [name for name in OBJECTS if name.partition("/")[0] == kind]
    name = source.choice(of_kind)
    data = OBJECTS[name]
    changed: dict[str, bytes | None] = {name: None}
    if way == "flip":
        place = source.randrange(len(data))
        changed[name] = data[:place] + bytes([data[place] ^ 1 << source.randrange(8)]) + data[place + 1 :]
    elif way == "cut":
        changed[name] = data[: source.randrange(len(data))]
    elif way == "swap":
        other = source.choice([each for each in of_kind if each != name] or [each for each in OBJECTS if each != name])
        changed = {name: OBJECTS[other], other: data}
    elif way == "replay":
        with aged.opened(STORE) as repo:
            changed[name] = aged.older(repo, name, source)
    changed = {each: found for each, found in changed.items() if found != OBJECTS[each]}
    return (way, kind, changed) if changed else draw(source)
