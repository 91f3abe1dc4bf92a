"""The shape of the package: imports point down, there are no cycles, modules stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import hassette_aps

PACKAGE = Path(hassette_aps.__file__).parent

LAYERS: list[set[str]] = [
    {"types", "instants", "execution_id", "jsonable", "callables"},
    {"triggers", "records", "error_context", "health", "grid"},
    {"options", "settings"},
    {"owner", "job", "run", "registry", "agenda", "overlap", "deadlines", "workers"},
    {"clockwork", "events", "timer", "eager", "executor", "store", "rows", "conflicts", "keptrows", "jobs", "foreign",
     "registration", "engine", "logfilter", "waking"},
    {"listeners", "registered", "telemetry"},
    {"lifecycle", "methods", "scheduler"},
    {"__init__", "testing", "hassette"},
]  # fmt: skip
"""From the values at the bottom to the faces at the top; a module imports from its own layer or below."""

THIRD_PARTY: dict[str, set[str]] = {
    "croniter": {"triggers"},
    "sqlalchemy": {"telemetry"},
    "tzlocal": set(),
    "apscheduler": {
        "triggers", "callables", "clockwork", "events", "executor", "store", "rows", "keptrows", "jobs", "foreign",
        "registration", "engine", "scheduler", "hassette",
    },
    "whenever": {
        "triggers", "instants", "job", "run", "methods", "scheduler", "testing", "hassette",
    },
    "pydantic": {"settings", "error_context", "jsonable"},
    "pydantic_core": {"error_context", "jsonable"},
    "time_machine": {"testing"},
    "pytest": {"testing"},
    "hassette": {"hassette"},
}  # fmt: skip
"""Who may import what; everything else of a third party is free."""


def module_of(path: Path) -> str:
    """The module or sub-package, as the table names it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, ast.stmt, bool]]:
    """Imported modules of a file: dotted name, node, whether inside a function."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found: list[tuple[str, ast.stmt, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            prefix = "hassette_aps." if node.level else ""
            found.append((prefix + node.module, node, id(node) in inside))
        elif isinstance(node, ast.Import):
            found.extend((alias.name, node, id(node) in inside) for alias in node.names)
    return found


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def level(module: str) -> int:
    """The layer of a module."""
    return next(n for n, names in enumerate(LAYERS) if module in names)


def test_every_module_has_a_layer() -> None:
    """A new module is put on a layer when it is made."""
    known = set().union(*LAYERS)
    assert {module_of(path) for path in files()} - known == set()


def test_imports_point_down() -> None:
    """A module imports from its own layer or below, never from above, type-checking imports included.

    One exception: the lifecycle names the database's class, which it loads only when a database is used.
    """
    wrong: list[str] = []
    for path in files():
        for name, node, _ in imports(path):
            package, _, rest = name.partition(".")
            if package != "hassette_aps":
                continue
            target = rest.partition(".")[0] or "__init__"
            if level(target) > level(module_of(path)):
                wrong.append(f"{path.name}:{node.lineno} imports {name}")
    assert wrong == []


def test_there_are_no_cycles() -> None:
    """No module imports itself by way of others."""
    graph: dict[str, set[str]] = {}
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files()}
    for name, path in names.items():
        graph[name] = {target for target, _, inside in imports(path) if target in names and not inside}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_function_level_imports_of_our_own() -> None:
    """Our own modules are imported at the top; the database's is loaded by name when it is used."""
    found = [
        f"{path.name}:{node.lineno} {name}"
        for path in files()
        for name, node, inside in imports(path)
        if inside and name.startswith("hassette_aps")
    ]
    assert found == []


def test_third_parties_stay_where_they_belong() -> None:
    """croniter in the triggers, SQLAlchemy in the telemetry, Hassette in the mixin, and so on."""
    found = [
        f"{path.name}:{node.lineno} {name}"
        for path in files()
        for name, node, _ in imports(path)
        if (package := name.partition(".")[0]) in THIRD_PARTY and module_of(path) not in THIRD_PARTY[package]
    ]
    assert found == []


def test_modules_stay_small() -> None:
    """A module over 350 lines is asking to be two; the executor may show a run from admission to verdict."""
    long = {path.name: n for path in files() if (n := len(path.read_text().splitlines())) > 350}
    assert set(long) <= {"executor.py", "scheduler.py"}
    assert all(n <= 420 for n in long.values())


def test_importing_the_package_is_light() -> None:
    """11.19: importing does not import SQLAlchemy and other heavy parts; constructing with a database does."""
    program = (
        "import sys, hassette_aps\n"
        "heavy = {'sqlalchemy', 'time_machine', 'pytest', 'hassette', 'psycopg', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "hassette_aps.Scheduler(database=None)\n"
        "assert 'sqlalchemy' not in sys.modules\n"
        "hassette_aps.Scheduler()\n"
        "assert 'sqlalchemy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=PACKAGE.parent)
