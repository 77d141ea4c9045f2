"""What a running server says that it can be asked: the operations of its OpenAPI document, and bodies that fit it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.kit.server import Person

CHANGING = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Field:
    """``place``: path, query or header."""

    name: str
    place: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """``body``: the schema of a body in JSON, with all references solved; None: it takes none."""

    method: str
    path: str
    fields: tuple[Field, ...]
    body: Mapping[str, Any] | None
    takes_bytes: bool

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_changing(self) -> bool:
        return self.method in CHANGING


def operations(anybody: Person) -> list[Operation]:
    document = anybody.get("/v1/openapi.json")
    return [
        _operation(document, method.upper(), path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]


def _operation(document: Mapping[str, Any], method: str, path: str, told: Mapping[str, Any]) -> Operation:
    fields = tuple(
        Field(each["name"], each["in"], _solved(document, each["schema"])) for each in told.get("parameters", ())
    )
    content = told.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    body = None if schema is None else _solved(document, schema)
    return Operation(method, path, fields, body, "application/octet-stream" in content)


def _solved(document: Mapping[str, Any], schema: Any) -> Any:
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            found: Any = document
            for word in schema["$ref"].removeprefix("#/").split("/"):
                found = found[word]
            return _solved(document, found)
        return {name: _solved(document, value) for name, value in schema.items()}
    return [_solved(document, each) for each in schema] if isinstance(schema, list) else schema


def texts(schema: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Names of what is text in a body, and could name somebody's object."""
    for each in schema.get("anyOf", ()):
        yield from texts(each, name)
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        yield name
    if schema.get("type") == "array":
        yield from texts(schema.get("items", {}), name)
    for key, value in schema.get("properties", {}).items():
        yield from texts(value, key)


def filled(schema: Mapping[str, Any], given: Mapping[str, Any], name: str = "") -> Any:
    """Something that fits; ``given`` by the names of fields."""
    if name in given:
        return [given[name]] if schema.get("type") == "array" else given[name]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return filled(schema["anyOf"][0], given, name)
    match schema.get("type"):
        case "object":
            return {key: filled(value, given, key) for key, value in schema.get("properties", {}).items()}
        case "array":
            count = max(1, schema.get("minItems", 1))
            return [filled(schema.get("items", {}), given, name) for _ in range(count)]
        case "integer":
            return int(schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1))
        case "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
        case "string":
            return ("filler" * 6)[: max(6, schema.get("minLength", 6))]
    return None


def choices(names: list[str], values: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every way to give each name one of its values."""
    for chosen in itertools.product(*(values[name] for name in names)):
        yield dict(zip(names, chosen, strict=True))
