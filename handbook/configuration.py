"""The tables of docs/policies.md, from the model that reads the file: ``python -m handbook.configuration``.

What a key means stands below it in ``headstart.host.tables``; the default, unless that tells it in words, is the
field's.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from handbook.markdown import code, table
from headstart.backup.transport import Transport
from headstart.host import tables

PAGE = Path(__file__).parents[1] / "docs" / "policies.md"
#: How each kind of ``host.keys`` is written.
KINDS = {
    "AbsolutePath": "path",
    "Address": "path or URL",
    "Appliances": "text, or a list of texts",
    "Assigned": 'name of a policy, or `"none"`',
    "Audit": 'number, `"all"`, `"none"`',
    "Calendar": "text, or a list of texts",
    "Checks": "text, or a list of texts",
    "Clock": "time of day",
    "Commands": "text, or a list of texts",
    "Count": "number",
    "Days": "days",
    "Duration": "duration",
    "HowConsistent": "text",
    "Listen": '`"HOST:PORT"`',
    "Memory": "text",
    "Pattern": "text",
    "Percentile": "number from 0 to 100",
    "PositiveDuration": "duration, not 0",
    "Rate": 'rate, 0, `"unlimited"`',
    "Share": "number from 0 to 1",
    "SignOfLife": "text",
    "StoreRate": "rate, at least 1 MiB/s",
    "Text": "text",
    "Transports": "list of " + ", ".join(code(f'"{each}"') for each in ("agent", "appliance", "host")),
    "Truth": "`true`, `false`",
    "Volumes": "list of patterns",
    "WhatFollows": "text",
    "Zone": "text",
}
_MARK = re.compile(r"<!-- keys of (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)
_DEFAULT = re.compile(r" Default: (.+)\.$")
_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))


def filled(page: str) -> str:
    """The page with its tables of keys as they are now. They stand between two comments."""
    return _MARK.sub(lambda found: _marked(found[1]), page)


def _marked(name: str) -> str:
    rows = table(("key", "type", "default", ""), _rows(getattr(tables, name))).rstrip("\n")
    return f"<!-- keys of {name} -->\n{rows}\n<!-- end -->\n"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    [body] = ast.parse(inspect.getsource(model)).body
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            told = _text(following)
            name, field = statement.target.id, model.model_fields[statement.target.id]
            words = _DEFAULT.search(told)
            default = words[1] if words else _default(field.default, _kind(statement.annotation))
            yield code(field.alias or name), _kind(statement.annotation), default, _DEFAULT.sub("", told)


def _text(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def _kind(annotation: ast.expr) -> str:
    name = ast.unparse(annotation).removesuffix(" | None")
    if name.startswith("list["):
        return "list of tables"
    return "table" if name.endswith("Table") else KINDS[name]


def _default(value: Any, kind: str) -> str:
    if value is PydanticUndefined:
        return code("[]") if kind == "list of tables" else "must be there"
    if value is None or value == () or value == "":
        return "none"
    if kind.startswith("duration"):
        return code(json.dumps(_duration(value)))
    if isinstance(value, BaseModel):
        return code("{}")
    return code(json.dumps(_plain(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, Transport | Enum):
        return value.value
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _duration(seconds: float) -> str:
    size, unit = next((each for each in _UNITS if seconds and not seconds % each[0]), _UNITS[-1])
    return f"{seconds / size:g}{unit}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
