"""The known failures of ``tests/mutations.py`` can still be put back."""

from pathlib import Path

import pytest

import hassette_aps
from tests.mutations import MUTATIONS, Mutation

PACKAGE = Path(hassette_aps.__file__).parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_still_applies(mutation: Mutation) -> None:
    """The text that a mutation changes is in the source, and its tests are files."""
    for file, old, new in mutation.changes:
        assert (PACKAGE / file).read_text().count(old) >= 1
        assert old != new
    assert all((PACKAGE.parent / test.partition("::")[0]).is_file() for test in mutation.tests.split())
