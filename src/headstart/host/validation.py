"""What is wrong with one table, in plain words and all of it."""

from __future__ import annotations

import copy
import itertools
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headstart.host import notation, tables
from headstart.host.locate import Path

T = TypeVar("T", bound=BaseModel)

_WANTED = {
    "missing": "is missing",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "list_type": "must be a list of tables",
}


@dataclass(frozen=True, slots=True)
class Wrong:
    """``unknown``: there is no key of this name."""

    path: Path
    message: str
    unknown: bool


def validate(table: type[T], value: object) -> tuple[T | None, list[Wrong]]:
    """The table, or where it is wrong and why."""
    try:
        return table.model_validate(value), []
    except ValidationError as error:
        return None, [
            Wrong(each["loc"], _told(table, each), each["type"] == "extra_forbidden")
            for each in error.errors(include_url=False)
        ]


def without(value: object, paths: Iterable[Path]) -> Any:
    """A copy of a table that lacks these keys; an array that has one of them is left out."""
    rest = copy.deepcopy(value)
    for path in paths:
        inner: Any = rest
        for each, following in itertools.pairwise(path):
            if isinstance(following, int) or not isinstance(inner.get(each), dict):
                inner.pop(each, None)
                break
            inner = inner[each]
        else:
            inner.pop(path[-1], None)
    return rest


def _told(table: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        *inside, key = error["loc"]
        return unknown(str(key), list(tables.fields(_at(table, inside))))
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    wanted = _WANTED.get(error["type"])
    if wanted is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {notation.shown(error['input'])}"
    return wanted if error["type"] == "missing" else f"{wanted}, not {notation.shown(error['input'])}"


def unknown(key: str, known: list[str]) -> str:
    hint = notation.nearest(key, known)
    return f"there is no such key{hint}" if hint else f"there is no such key. Allowed: {', '.join(known)}"


def _at(table: type[BaseModel], path: list[int | str]) -> type[BaseModel]:
    """The table at a path inside of another."""
    for each in path:
        if isinstance(each, str):
            table = _table_in(tables.fields(table)[each]) or table
    return table


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_table_in(each) for each in typing.get_args(annotation))
    return next((each for each in inner if each is not None), None)
