"""What documents show of the program's words: ``...`` is whatever is different each time."""

from __future__ import annotations


def shown(document: str, said: str) -> bool:
    """Whether it says just that. The width of columns, and where lines are broken, does not matter."""
    rest = " ".join(said.split())
    first, *others = (" ".join(piece.split()) for piece in document.split("..."))
    if not rest.startswith(first):
        return False
    rest = rest[len(first) :]
    if not others:
        return not rest
    for piece in others[:-1]:
        _, found, rest = rest.partition(piece) if piece else ("", "yes", rest)
        if not found:
            return False
    return rest.endswith(others[-1])
