"""Overlays of a domain: what a dead run left of them. libvirt's part is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart import durable
from headstart.hypervisor import overlays
from headstart.hypervisor.libvirt import overlaying
from headstart.hypervisor.libvirt.overlaying import Overlaying
from headstart.hypervisor.overlays import Place
from tests.hypervisor.covers import MINE, SIZE, cover


class Domain:
    """Transient."""

    def ask(self, question: Any) -> bool:
        return False


def test_what_a_dead_run_committed_goes_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut would else leave an overlay, or a definition, that leads to a file which is gone."""
    image = tmp_path / "data.raw"
    image.write_bytes(bytes(SIZE))
    place = overlays.place_of(image, tmp_path, MINE)
    lowest, topmost, committed = cover(place), cover(place), place.new()
    place.create(committed, image, "raw", SIZE)
    kept = [lowest.path, topmost.path]
    steps: list[Path] = []
    monkeypatch.setattr(durable, "sync", lambda path: steps.append(path))
    monkeypatch.setattr(Place, "remove", lambda _, path: steps.append(path))
    domain: Any = Domain()
    tidied = Overlaying(domain, 65536)._tidied("vda", place, kept, [])
    assert [str(committed) in each for each in tidied] == [True]
    assert steps == [image, lowest.path, overlaying.DEFINITIONS, committed]
    steps.clear()
    committed.unlink()
    assert not list(Overlaying(domain, 65536)._tidied("vda", place, kept, [])) and not steps
