"""A thousand random damages: each is found, and the object that was damaged is named. Without damage nothing is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.repository import verify
from headstart.repository.config import Config
from headstart.repository.repo import Repository
from headstart.repository.verify import Report
from headstart.store.memory import MemoryStore
from tests.repository import aged, samples
from tests.repository.damages import CLASSES, MANIFESTS, OBJECTS, REMEMBERED, STORE, WAYS, draw

DAMAGES = 1000


def report_of(store: MemoryStore) -> Report:
    with aged.opened(store) as repo:
        return verify.verify_all(repo, samples.silent, REMEMBERED)


def complaints(changed: dict[str, bytes | None]) -> tuple[set[str], Report | None, MemoryStore]:
    after = {**OBJECTS, **changed}
    store = aged.copy_of({name: data for name, data in after.items() if data is not None})
    try:
        report = report_of(store)
    except (errors.Damaged, errors.WrongPassword) as error:
        named = error.facts.get("objects") or [error.facts["object"]]
        assert isinstance(named, list)
        return set(named), None, store
    return {finding.object for finding in report.findings}, report, store


def test_nothing_is_found_where_nothing_is_damaged() -> None:
    assert CLASSES == ["config", "drafts", "indexes", "keys", "losses", "packs", "snapshots", "twins"]
    report = report_of(STORE)
    assert (report.findings, report.snapshots) == ((), 3)


def test_a_swap_of_equal_objects_is_no_damage() -> None:
    assert OBJECTS["config"] == OBJECTS["twins/config"]
    assert report_of(aged.copy_of(OBJECTS | {"config": OBJECTS["twins/config"]})).findings == ()


@pytest.mark.parametrize("part", range(4))
def test_every_damage_is_found_and_named(part: int) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(part * DAMAGES // 4, (part + 1) * DAMAGES // 4):
        way, kind, changed = draw(random.Random(seed))
        named, report, store = complaints(changed)
        assert set(changed) <= named, f"seed {seed}: {way} of {sorted(changed)}: only {sorted(named)} was named"
        if report is not None and kind == "packs":
            check_touched(store, report)
        seen[way, kind] += 1
    assert len(seen) == len(WAYS) * len(CLASSES), "some damage was never tried"


def test_without_the_content_secret_as_much_is_found() -> None:
    """A server says of each damage what the owner says."""
    for seed in range(DAMAGES, DAMAGES + 150):
        way, _, changed = draw(random.Random(seed))
        named, report, store = complaints(changed)
        if report is None:
            continue
        with aged.opened(store) as repo:
            config = Config(repo.secrets.repository_id, repo.block_size, repo.tree_leaf, repo.tree_fanout)
            server = Repository(store, repo.secrets.structure_alone(), config, encrypted=True)
        told = verify.verify_all(server, samples.silent, REMEMBERED)
        assert {finding.object for finding in told.findings} == named, f"seed {seed}: {way} of {sorted(changed)}"
        # More where a pack's own index is damaged: the owner reads its chunks all the same.
        assert _touched(told) >= _touched(report), f"seed {seed}: {way} of {sorted(changed)}"


def _touched(report: Report) -> set[tuple[str, verify.Touched]]:
    return {(finding.object, touched) for finding in report.findings for touched in finding.touched}


def check_touched(store: MemoryStore, report: Report) -> None:
    """Exactly what cannot be read is said to be touched."""
    told: dict[tuple[str, str], Blocks] = {}
    for finding in report.findings:
        for each in finding.touched:
            if each.extents:
                found = blocks.of_extents(each.extents, aged.BLOCK)
                told[each.snapshot, each.name] = told.get((each.snapshot, each.name), Blocks()) | found
    with aged.opened(store) as repo:
        for manifest in MANIFESTS:
            for disk, lost in aged.unreadable(repo, manifest).items():
                assert told.get((manifest.id, disk), Blocks()) == lost
