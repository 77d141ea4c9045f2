"""What others have written, made harmless for a terminal, a log or a page.

A guest, QEMU, libvirt, or whoever shares a repository chooses names and the texts of errors. A terminal obeys some
characters (ECMA-48: C0 and C1, so also ESC), a log takes others for the beginning of a new entry, and some turn the
direction of what follows (Unicode's bidirectional controls) or cannot be seen. None of them is printable as Python's
``str.isprintable`` has it, nor can be stored as text if it is half of a surrogate pair.

JSON needs nothing of this: it is written in ASCII, and stays exact.
"""

from __future__ import annotations

#: In the place of a character that is not shown.
HIDDEN = "?"
#: Characters that say enough. What is cut ends in an ellipsis.
LONGEST = 1000


def line(text: str, longest: int = LONGEST) -> str:
    """One line, of ``longest`` characters at most, that looks like what it is."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if text.isprintable() else "".join(each if each.isprintable() else HIDDEN for each in text)


def joined(text: str, longest: int = LONGEST) -> str:
    """Several lines as one."""
    return line(" ".join(text.split()), longest)


def lines(text: str) -> str:
    """Lines that are ours, with words of others in them: of any length, and as many as there are newlines."""
    return "\n".join(line(each, max(1, len(each))) for each in text.split("\n"))
