"""Lists in pages, from the code: ``python -m handbook.lists``. Each stands between two comments.

What an event of the daemon's log means is told here, as no code needs the words.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from handbook.markdown import code, table
from headstart.cli import manual

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "cli.md", ROOT / "docs" / "monitoring.md"]
#: What stands for the part of an event's name that is known when it happens.
_OPEN = "..."
#: Of a host's log, in the order of a day.
EVENTS = {
    "started": "the daemon is there",
    "stopped": "it ended; `hanging`: what did not",
    "reloaded": "the configuration was read again",
    "protected": "a VM is looked after from now on",
    "dismissed": "and no longer",
    "policy": "a VM has another policy; as a warning: it has two that name it, or none can be told",
    "due": "a backup is due; `missed`: it was before, and nobody was there",
    "will-not-fit": "scratch or spool are too small for what is to be expected",
    "backup": "a backup was completed, with what it came to",
    "published": "one that waited in the spool is in the repository now",
    "agent-false": "the audit found false what the agent had delivered",
    "appliance-false": "the same of appliances",
    "cancelled": "somebody ended what was under way",
    "failed": "a round, a backup or whatever `verb` says failed; it is tried again",
    "hangs": "a VM's work was not heard of for 20 minutes",
    "bug": "a mistake of ours; the lines after it say where",
    "trim": "the guest was asked to give free blocks back; as a warning: that failed",
    "forgot": "old snapshots were forgotten",
    "forget": "that failed",
    "collected": "space was freed",
    "locked": "the locks of an immutable repository were extended",
    "rehearsed": "a rehearsal has passed",
    "not-proven": "and one that has not",
    "rehearse": "one could not be made",
    "booted": "a VM was booted for the server",
    "order": "the server ordered something",
    "order-...": "what became of it: `done`, `failed` and so on",
    "connected": "the server answers",
    "server-...": "it does not: `away`, `refused`",
    "left": "this host is no host of the server any longer",
    "not-taken-in": "the server does not take a VM in",
    "policies": "the server has other policies; `overridden`: where this host's own come before",
    "token": "the server gave a new token",
    "untold": "what happened cannot be told to the server now",
}


def filled(page: str) -> str:
    """The page with its lists as they are now."""
    for name, rows in {"variables": variables, "events": events}.items():
        between = re.compile(rf"<!-- {name} -->\n.*?<!-- end -->\n", re.DOTALL)
        page = between.sub(f"<!-- {name} -->\n{rows().rstrip()}\n<!-- end -->\n".replace("\\", r"\\"), page)
    return page


def variables() -> str:
    """Of the environment."""
    rows = [(", ".join(map(code, names.split(", "))), said) for names, said in manual.ENVIRONMENT]
    return table(("variable", ""), rows)


def events() -> str:
    found = written()
    missing = found.keys() ^ EVENTS.keys()
    assert not missing, f"handbook/lists.py has no words, or too many, for {missing}"
    rows = [(code(name), ", ".join(map(code, found[name])), said) for name, said in EVENTS.items()]
    return table(("`event=`", "with", ""), rows)


def written() -> dict[str, list[str]]:
    """By event, what a line has beside it: of each call in ``host/`` that writes one."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src" / "headstart" / "host").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                values = {each.arg: each.value for each in node.keywords if each.arg}
                for name in _texts(values.pop("event", None)):
                    found[name] = list(dict.fromkeys([*found.get(name, []), *values]))
    return found


def _texts(name: ast.expr | None) -> list[str]:
    match name:
        case ast.IfExp():
            return [*_texts(name.body), *_texts(name.orelse)]
        case ast.JoinedStr():
            return ["".join(str(each.value) if isinstance(each, ast.Constant) else _OPEN for each in name.values)]
        case ast.Constant():
            return [str(name.value)]
    return []


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(filled(each.read_text()))
