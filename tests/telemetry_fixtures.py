"""Databases for tests: in memory, a SQLite file, PostgreSQL. A pytest plugin of the tests that ask for it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, run_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that do not stop it."""
    yield from run_server()


_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A fresh database in PostgreSQL."""
    name = f"runs_{next(_numbers)}"
    postgres.sql(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh SQLite file."""
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A fresh database, of each kind that can be shared between processes."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def any_url(request: pytest.FixtureRequest) -> str:
    """A fresh database, of each kind there is."""
    return "sqlite://" if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")
