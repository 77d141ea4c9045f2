"""The page of the server's API, from its OpenAPI document, which stands beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from handbook.markdown import code, table
from headstart.server import app, site
from headstart.server.settings import Settings

_HEAD = """# The API of the server

Under `https://SERVER/v1`, with a token (`Authorization: Bearer hst_...`) or a session; JSON both ways. Errors are
answered as RFC 9457 has it (`application/problem+json`), with `title` for programs and `detail` for people. Each
server has this document for itself as `/v1/openapi.json` (OpenAPI {openapi}); here it is [as a file](openapi.json).
Who may ask for what is in [rights](../docs/server-rights.md).
"""
_METHODS = ("get", "put", "post", "patch", "delete")


@cache
def _told() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        opened = site.open_site(Settings(place, f"sqlite:///{place / 'server.db'}", str(place / "objects")))
        return app.make(opened).openapi()


def document() -> str:
    return json.dumps(_told(), indent=1) + "\n"


def page() -> str:
    told = _told()
    parts = [_HEAD.format(openapi=told["openapi"])]
    for tag, routes in _by_tag(told).items():
        parts.append(f"\n## {tag.capitalize()}\n")
        parts += [_route(method, path, route) for method, path, route in routes]
    parts.append("\n## Values\n")
    parts += [_schema(name, schema) for name, schema in sorted(told["components"]["schemas"].items())]
    return "".join(parts)


def _by_tag(told: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in told["paths"].items():
        for method in _METHODS:
            if method in methods:
                tag = methods[method].get("tags", ["other"])[0]
                found.setdefault(tag, []).append((method.upper(), path, methods[method]))
    return found


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    lines = [f"\n### {method} {path}\n", route.get("description") or route.get("summary") or ""]
    rows = [(code(each["name"]), each["in"], _type(each["schema"]), _needed(each)) for each in _parameters(route)]
    lines.append(table(("", "in", "type", ""), rows))
    if body := route.get("requestBody"):
        lines.append(f"Body: {_content(body['content'])}\n")
    answers = {status: each for status, each in route["responses"].items() if status.startswith("2")}
    lines += [f"Answer {status}: {_content(each.get('content', {}))}\n" for status, each in answers.items()]
    return "\n".join(lines)


def _parameters(route: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for each in route.get("parameters", ()):
        if each["in"] != "cookie":
            yield each


def _needed(parameter: Mapping[str, Any]) -> str:
    told = parameter.get("description") or parameter["schema"].get("description", "")
    return f"must be there. {told}" if parameter.get("required") and parameter["in"] != "path" else str(told)


def _content(content: Mapping[str, Any]) -> str:
    if not content:
        return "nothing"
    return ", ".join(
        _type(each.get("schema", {})) if media == "application/json" else f"`{media}`"
        for media, each in content.items()
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = []
    needed = schema.get("required", ())
    for key, value in schema.get("properties", {}).items():
        default = json.dumps(value["default"]) if "default" in value else ("" if key in needed else "may lack")
        told = value.get("description", "")
        rows.append((code(key), _type(value), code(default) if "default" in value else default, told))
    head = f"\n### {name}\n\n{schema.get('description', '')}\n\n"
    return head + (table(("", "type", "default", ""), rows) or f"{_type(schema)}\n")


def _type(schema: Mapping[str, Any]) -> str:
    """In words, with links to values."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(each) for each in schema[several])
    if "enum" in schema:
        return ", ".join(code(json.dumps(each)) for each in schema["enum"])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    words = [str(kind), *(f"{word} {schema[key]}" for key, word in _LIMITS.items() if key in schema)]
    return ", ".join(words)


_LIMITS = {
    "maximum": "at most",
    "minimum": "at least",
    "maxLength": "at most so long:",
    "minLength": "at least so long:",
}
