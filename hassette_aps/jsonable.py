"""Any Python value as JSON, without ever raising."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from uuid import UUID

if TYPE_CHECKING:  # whoever asks for a schema has loaded these
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MAX_DEPTH = 50
"""Containers nested deeper than this become text."""

MAX_NODES = 100_000
"""Values in one tree; the rest becomes ``"..."``, so that shared references cannot explode."""

_MAX_INT = 2**63
_T = TypeVar("_T")


def jsonable(value: object) -> Json:
    """``value`` as what JSON can say: dicts with text keys, lists, text, numbers, booleans and None.

    Nothing that JSON can hold is lost. Other values become text: dates in ISO 8601, bytes in base64, nan and
    integers beyond 64 bits as written, objects as their ``repr``; a cycle or a ``repr`` that raises leaves a
    marker in angle brackets. Lone surrogates are escaped. Never raises, whatever the value does.
    """
    try:
        return _Walk().convert(value, 0)
    except BaseException:  # noqa: BLE001 (a value that fights back must not take its record along)
        return "<unprintable>"


def to_json(value: object) -> str:
    """``value`` as JSON text; never raises, see :func:`jsonable`."""
    return json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False)


def encodable(text: str) -> str:
    """``text`` as UTF-8 can carry it: lone surrogates are written as escapes."""
    if text.isascii():
        return str.__str__(text)
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


class JsonSafe:
    """Marks a field (``Annotated[T, JsonSafe]``) that pydantic turns into JSON with :func:`jsonable`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        schema = handler(source)
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(jsonable, when_used="json")
        return schema


class _Walk:
    """One conversion: the containers being walked, and how many values were seen."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.nodes = 0

    def convert(self, value: object, depth: int) -> Json:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            return "..."
        try:
            return self._scalar_or_container(value, depth)
        except BaseException:  # noqa: BLE001 (hostile __repr__, __iter__, __class__ ...)
            return _fallback(value)

    def _scalar_or_container(self, value: object, depth: int) -> Json:
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if issubclass(kind, Enum):
            return self.convert(cast("Enum", value).value, depth)
        if issubclass(kind, str):
            return encodable(cast("str", value))
        if issubclass(kind, int):
            number = int.__index__(cast("int", value))
            return number if -_MAX_INT <= number < _MAX_INT else hex(number)
        if issubclass(kind, float):
            real = float.__float__(cast("float", value))
            return real if math.isfinite(real) else repr(real)
        for types, text in _AS_TEXT:
            if issubclass(kind, types):
                return encodable(text(value))
        return self._container(value, kind, depth)

    def _container(self, value: object, kind: type[Any], depth: int) -> Json:
        as_dict = issubclass(kind, Mapping) or (is_dataclass(kind) and not issubclass(kind, tuple))
        if not as_dict and not issubclass(kind, list | tuple | AbstractSet):
            return encodable(repr(value))
        if id(value) in self.open:
            return f"<cycle: {kind.__name__}>"
        if depth >= MAX_DEPTH:
            return f"<nested deeper than {MAX_DEPTH}: {kind.__name__}>"
        self.open.add(id(value))
        try:
            if as_dict:
                return self._pairs(_items(value), depth)
            return [self.convert(item, depth + 1) for item in self._bounded(cast("Iterable[object]", value))]
        finally:
            self.open.discard(id(value))

    def _pairs(self, pairs: Iterable[tuple[object, object]], depth: int) -> Json:
        result: dict[str, Json] = {}
        for key, item in self._bounded(pairs):
            named = self.convert(key, depth + 1)
            text = named if isinstance(named, str) else json.dumps(named)
            while text in result:  # 1 and "1" are two keys
                text += "'"
            result[text] = self.convert(item, depth + 1)
        return result

    def _bounded(self, items: Iterable[_T]) -> Iterable[_T]:
        for item in items:
            if self.nodes > MAX_NODES:
                return
            yield item


def _items(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).items()
    return [(one.name, getattr(value, one.name, "<unset>")) for one in fields(cast("Any", value))]


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


def _iso(value: Any) -> str:
    return value.isoformat()


_AS_TEXT: tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...] = (
    ((date, time), _iso),
    ((bytes, bytearray, memoryview), _base64),
    ((timedelta, Decimal, UUID, PurePath), str),
    (BaseException, repr),
)


def _fallback(value: object) -> str:
    try:
        return encodable(f"<unprintable {type(value).__module__}.{type(value).__qualname__}>")
    except BaseException:  # noqa: BLE001
        return "<unprintable>"
