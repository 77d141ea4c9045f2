"""The tree that Sphinx reads: the project's pages where they lie in it, so that their links hold, the files that these
lead to, and the pages that the code writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from handbook import api, commands, contents, metrics

#: What pages lead to, beside pages.
_FOLDERS = ("docs", "deploy")
_FILES = ("CONTRIBUTING.md", "LICENSE")


def write(project: Path, target: Path) -> None:
    """``target`` must not be there."""
    for folder in _FOLDERS:
        shutil.copytree(project / folder, target / folder)
    for file in _FILES:
        shutil.copy(project / file, target / file)
    (target / "index.md").write_text((project / "README.md").read_text() + _tables_of_contents())
    reference = target / "reference"
    reference.mkdir()
    for name, text in (("commands", commands.page()), ("api", api.page()), ("metrics", metrics.page())):
        (reference / f"{name}.md").write_text(text)
    (reference / "openapi.json").write_text(api.document())


def _tables_of_contents() -> str:
    parts = []
    for title, pages in contents.PARTS.items():
        paths = [page if page.startswith("reference/") or page.isupper() else f"docs/{page}" for page in pages]
        parts += ["```{toctree}", ":hidden:", f":caption: {title}", "", *paths, "```", ""]
    return "\n" + "\n".join(parts)
