"""A rig whose backups leave volumes out, and are held against what another reader saw of the point in time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.backup.complete import Options
from headstart.backup.context import Context, Progress, quiet
from headstart.backup.report import BackupReport, VolumeReport
from headstart.extents import Extent
from headstart.repository import snapshot
from headstart.restore import rollback
from headstart.restore.rollback import Order, Report
from tests.e2e.rig import NAME, Rig, copy_point
from tests.kit import compare


@dataclass(frozen=True, slots=True)
class Chosen:
    """``excluded``: what the manifest tells, by disk and volume. ``seen``: another reader's copy of the point in time,
    ``restored``: what came of it."""

    report: BackupReport
    excluded: Mapping[str, Mapping[str, tuple[Extent, ...]]]
    seen: Mapping[str, Path]
    restored: Mapping[str, Path]

    def volume(self, name: str) -> VolumeReport:
        return next(each for each in self.report.volumes if each.name == name)


class Choosing(Rig):
    """``patterns`` are its policy's."""

    patterns: tuple[str, ...] = ("*",)

    @contextlib.contextmanager
    def context(self, progress: Progress = quiet) -> Iterator[Context]:
        with super().context(progress) as context:
            yield replace(context, volumes=self.patterns)

    def rolled_back(self, wanted: str, *, safety: bool) -> Report:
        """Of a VM that is off."""
        with self.context() as context:
            return rollback.rollback(context, NAME, snapshot.load(context.repository, wanted), Order(safety=safety))

    def chosen_backup(self, options: Options | None = None) -> Chosen:
        """Every byte is what was seen, but for those that the manifest excludes, which are zeroes."""
        seen: dict[str, Path] = {}

        def look(facts: Mapping[str, str]) -> None:
            shutil.rmtree(self.folder / "seen", ignore_errors=True)
            seen.update(copy_point(facts, self.folder / "seen"))

        # Only a full audit keeps all of the point in time readable for the hook.
        made = self.backup(replace(options or Options(), audit=None), before_release=look)
        assert made.audit.mismatched_bytes == 0, made
        with self.repo() as repo:
            manifest = snapshot.load(repo, made.snapshot)
        restored = self.restore(made.snapshot)
        twins = {disk.name: seen[disk.name.replace("-", "_").upper()] for disk in made.disks}
        for disk in manifest.disks:
            blanked = twins[disk.name].with_suffix(".blank")
            shutil.copy(twins[disk.name], blanked)
            with blanked.open("r+b") as file:
                for each in (extent for told in disk.excluded for extent in told.extents):
                    file.seek(each.start)
                    file.write(bytes(each.length))
            compare.assert_identical(restored[disk.name], blanked)
        self.assert_tidy()
        excluded = {disk.name: {each.volume: each.extents for each in disk.excluded} for disk in manifest.disks}
        return Chosen(made, excluded, twins, restored)
