"""The picture of imports: ``python -m handbook.imports`` draws it from the sources.

A square in the row of a layer and the column of another: the first imports from the second. As layers stand in the
order of imports, there is none above the diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.kit.imports import MODULES, ORDER, imports

FILE = Path(__file__).parents[1] / "docs" / "imports.svg"
#: Single modules count as one layer, the topmost; but for what starts the program.
_VALUES, _START = "values", "headstart.__main__"
_SIDE, _LEFT, _HEAD = 26, 108, 92
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}rect.own{fill:#bbb}rect.uses{fill:#2a6fb0}"
    "line{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#ccc}rect.own{fill:#555}rect.uses{fill:#5a9fe0}}"
)


def layers() -> list[str]:
    """Top to bottom."""
    folders = {module.split(".")[1] for module in MODULES if module.count(".") > 1}
    return [_VALUES, *(each for each in ORDER if each in folders)]


def uses() -> Mapping[str, set[str]]:
    """Of each layer, those that it imports from."""
    known = layers()
    found: dict[str, set[str]] = {each: set() for each in known}
    for module in MODULES.keys() - {_START}:
        for target in imports(module):
            found[_layer(module, known)].add(_layer(target, known))
    return found


def _layer(module: str, known: list[str]) -> str:
    name = module.split(".")[1]
    return name if name in known else _VALUES


def drawing() -> str:
    known = layers()
    wide, high = _LEFT + _SIDE * len(known) + 40, _HEAD + _SIDE * len(known) + 8
    told = "Which layer imports from which"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" role="img">',
        f"<title>{told}</title><style>{_STYLE}</style>",
        *_names(known, wide),
        *_squares(known),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _names(known: list[str], wide: int) -> Iterator[str]:
    for number, name in enumerate(known):
        at = _SIDE * number
        x, y = _LEFT + at + _SIDE / 2 + 4, _HEAD + at + _SIDE / 2 + 4
        yield f'<text x="{_LEFT - 8}" y="{y:g}" text-anchor="end">{name}</text>'
        yield f'<text transform="translate({x:g} {_HEAD - 6}) rotate(-55)">{name}</text>'
        yield f'<line x1="8" x2="{wide - 40}" y1="{_HEAD + at}" y2="{_HEAD + at}"/>'


def _squares(known: list[str]) -> Iterator[str]:
    found = uses()
    for row, name in enumerate(known):
        for column, target in enumerate(known):
            kind = "own" if row == column else "uses" if target in found[name] else ""
            if kind:
                x, y = _LEFT + _SIDE * column + 3, _HEAD + _SIDE * row + 3
                yield f'<rect class="{kind}" x="{x}" y="{y}" width="{_SIDE - 6}" height="{_SIDE - 6}" rx="3"/>'


if __name__ == "__main__":
    FILE.write_text(drawing())
