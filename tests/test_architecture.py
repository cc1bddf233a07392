"""The house stands: rooms import only from floors below, and each heavy library enters by one door."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
FLOORS = {"customers": 1, "features": 2, "models": 2, "training": 3, "serving": 3, "pipelines": 4}
DOORS = {
    "sqlalchemy": ["customers/"],
    "alembic": ["customers/"],
    "cryptography": ["customers/"],
    "feast": ["features/"],
    "ibis": ["features/"],
    "implicit": ["models/recommender/matrix_factorisation.py", "models/benchmarks/next_basket.py"],
    "lightgbm": ["models/estimators/boosted_trees.py"],
    "torch": ["models/timing/network_training.py"],
    "mlflow": [
        "models/registry/mlflow_registry.py",
        "models/registry/mlflow_runs.py",
        "models/registry/mlflow_client.py",
    ],
    "bentoml": ["serving/service.py"],
    "matplotlib": ["pipelines/reporting/plots.py"],
    "dagster": ["pipelines/definitions.py"],
    "jinja2": ["serving/console/"],
    "typer": ["pipelines/cli/app.py", "pipelines/cli/customers_and_keys.py", "pipelines/cli/terminal.py"],
}
ROOMS = sorted(path for floor in FLOORS for path in (HOUSE / floor).rglob("*.py"))


def imported(room: Path) -> set[str]:
    """The top-level names that a room imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(room.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def relative(room: Path) -> str:
    return room.relative_to(HOUSE).as_posix()


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_a_room_imports_only_from_floors_below(room: Path) -> None:
    floor = relative(room).split("/")[0]
    above = {name for name in imported(room) & set(FLOORS) if name != floor and FLOORS[name] >= FLOORS[floor]}
    assert not above, f"{relative(room)} must not know {', '.join(sorted(above))}"


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_a_heavy_library_enters_by_its_own_door(room: Path) -> None:
    trespassing = {
        name for name in imported(room) & set(DOORS)
        if not any(relative(room).startswith(door) for door in DOORS[name])
    }  # fmt: skip
    assert not trespassing


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_a_room_opens_with_a_sentence(room: Path) -> None:
    sentence = ast.get_docstring(ast.parse(room.read_text(encoding="utf-8")))
    assert sentence
    assert sentence.strip().splitlines()[0].endswith((".", "?", ":", ","))


@pytest.mark.parametrize("floor", FLOORS)
def test_a_chapter_imports_nothing(floor: str) -> None:
    assert imported(HOUSE / floor / "__init__.py") == set()


def test_every_door_is_used() -> None:
    used = set().union(*(imported(room) for room in ROOMS))
    assert set(DOORS) <= used


def test_no_room_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "manager", "handler", "data", "info", "process", "common", "core"}
    assert not {room.stem for room in ROOMS} & empty


def test_no_package_hides_under_the_tests() -> None:
    assert not list((HOUSE / "tests").rglob("__init__.py"))


def test_a_family_file_is_never_read_by_feast() -> None:
    """Feast imports every file of its repository that .feastignore does not name, and would register views twice."""
    starting_with_d = [path.name for path in (HOUSE / "features").glob("d*.py")]
    assert starting_with_d == ["definitions.py"]
