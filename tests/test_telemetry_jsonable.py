"""Any value becomes JSON, and nothing it does can raise."""

import enum
import json
import math
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hassette_aps.jsonable import MAX_NODES, JsonSafe, encodable, jsonable, to_json


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: Any = None
    late: Any = field(default=None, init=False)


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2**64, hex(2**64)),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("é", "é"),
        ("a\udc80b", "a\\udc80b"),
        (b"\x00\xff", "AP8="),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), "0:01:30"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (PurePosixPath("/a/b"), "/a/b"),
        (ValueError("x"), "ValueError('x')"),
        ((1, [2, {3}]), [1, [2, [3]]]),
        (Pair(1, 2), [1, 2]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "int", "1": "text", None: 0}, {"1": "int", "1'": "text", "null": 0}),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None, "late": None}, "late": None}),
        (int, "<class 'int'>"),
    ],
)
def test_what_each_kind_of_value_becomes(value: object, expected: object) -> None:
    """Each kind of value has one form in JSON, and that form survives a round trip."""
    assert jsonable(value) == expected
    assert json.loads(to_json(value)) == expected


class Hostile:
    """Raises from everything a conversion may ask."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __repr__(self) -> str:
        raise self.exc

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise self.exc

    def __hash__(self) -> int:
        return 1


class HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class HostileText(str):
    def encode(self, *_: Any) -> Any:
        raise RuntimeError("no encode")

    def __str__(self) -> str:
        raise RuntimeError("no str")


class Endless(list[int]):
    def __iter__(self) -> Any:
        while True:
            yield 1


@pytest.mark.parametrize("exc", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), RecursionError()])
def test_a_value_that_raises_leaves_a_marker(exc: BaseException) -> None:
    """A value whose ``repr`` or ``__class__`` raises anything becomes a marker; its neighbours are kept."""
    result = jsonable({"bad": Hostile(exc), "good": [1]})
    assert result == {"bad": f"<unprintable {__name__}.Hostile>", "good": [1]}


def test_hostile_subclasses_of_built_ins() -> None:
    """Subclasses that override what a conversion would call do not get in the way."""
    assert jsonable(HostileDict(a=1)) == f"<unprintable {__name__}.HostileDict>"
    assert jsonable(HostileText("é")) == "é"
    assert jsonable(HostileText("e")) == "e"
    assert len(json.loads(to_json(Endless()))) <= MAX_NODES + 1


def test_cycles_depth_and_shared_references_end() -> None:
    """A cycle, a list nested 100,000 deep, and a DAG of 2**60 paths each give a finite answer."""
    cycle: list[Any] = [1]
    cycle.append({"self": cycle})
    assert jsonable(cycle) == [1, {"self": "<cycle: list>"}]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested deeper" in to_json(deep)
    while deep:  # take it apart by hand: freeing it recursively is not this test's subject
        deep = deep[0]
    wide: list[Any] = [1]
    for _ in range(40):
        wide = [wide, wide]
    assert len(to_json(wide)) < 3_000_000


def test_near_the_recursion_limit_still_answers() -> None:
    """Called with hardly any stack left, the answer is a marker, not a ``RecursionError``."""
    results: list[Any] = []

    def dig() -> None:
        try:
            dig()
        except RecursionError:
            results.append(jsonable([[1]]))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        dig()
    finally:
        sys.setrecursionlimit(limit)
    assert results


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_every_text_can_be_encoded(text: str) -> None:
    """Any text, lone surrogates included, comes out as something UTF-8 can carry."""
    encodable(text).encode("utf-8")


everything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text() | st.none(), inner),
    max_leaves=20,
)


@given(everything)
def test_pydantic_can_dump_any_marked_field(value: object) -> None:
    """A field marked ``JsonSafe`` goes through pydantic's own JSON writer, whatever it holds."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Any, JsonSafe])
    assert json.loads(adapter.dump_json(value)) == json.loads(to_json(value))
