"""The order of the rooms: an import only ever points further up the list, and the pure rooms touch nothing outside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "woodpecker_vault"
HOUSE = Path(__file__).parent.parent / PACKAGE

PURE = ("errors", "exact_json", "signature", "replay", "woodpecker", "paths", "entries", "access")
ROOMS = (
    *PURE,
    "budget",
    "caller",
    "tasks",
    "watched",
    "sparing",
    "tls",
    "pool",
    "vault",
    "service",
    "keys",
    "app",
    "listener",
    "config",
    "telemetry",
    "cli",
    "__main__",
)
FREE_FOR_ALL = "__init__"

MAY_IMPORT = {"hvac": {"vault"}, "botocore": {"vault"}, "aiohttp": {"pool", "vault", "keys", "app", "listener", "cli"}}
"""Who may import these; others not."""

IMPURE = {
    "asyncio",
    "aiohttp",
    "hvac",
    "logging",
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "os",
    "pathlib",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "tempfile",
    "sys",
    "io",
}

MODULES = sorted(str(path.relative_to(HOUSE)) for path in HOUSE.rglob("*.py"))


def room_of(module: str) -> str:
    """The room that a file of the package, or the path of a module inside it, belongs to."""
    return module.removesuffix(".py").split("/")[0]


def tree_of(module: str) -> ast.Module:
    return ast.parse((HOUSE / module).read_text(), module)


def imports(module: str) -> Iterator[str]:
    """Everything that a module imports, with a slash for a dot: ``woodpecker_vault/errors/Invalid``, ``os``."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            yield from (f"{node.module}/{alias.name}".replace(".", "/") for alias in node.names)


def imported_rooms(module: str) -> set[str]:
    inside = {name.removeprefix(f"{PACKAGE}/") for name in imports(module) if name.split("/")[0] == PACKAGE}
    return {room_of(name) for name in inside if not name.startswith("__version__")}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_in_a_room(module: str) -> None:
    assert room_of(module) in {*ROOMS, FREE_FOR_ALL}


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in ROOMS])
def test_a_module_imports_only_from_its_own_room_and_those_further_up(module: str) -> None:
    own = ROOMS.index(room_of(module))
    assert imported_rooms(module) <= set(ROOMS[: own + 1])


def test_what_is_free_for_all_imports_no_room() -> None:
    assert imported_rooms(f"{FREE_FOR_ALL}.py") == set()


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("library", MAY_IMPORT)
def test_only_certain_rooms_import_certain_libraries(library: str, module: str) -> None:
    if library in {name.split("/")[0] for name in imports(module)}:
        assert room_of(module) in MAY_IMPORT[library]


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_has_no_clock_no_randomness_and_no_way_out(room: str) -> None:
    assert {name.split("/")[0] for name in imports(f"{room}.py")} & IMPURE == set()
    called = {node.id for node in ast.walk(tree_of(f"{room}.py")) if isinstance(node, ast.Name)}
    assert called & {"open", "print", "input", "exec", "eval", "__import__"} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_there(room: str) -> None:
    assert (HOUSE / room).is_dir() or (HOUSE / f"{room}.py").is_file()
