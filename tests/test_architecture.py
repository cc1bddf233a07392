"""The architecture: imports go down without a circle, heavy libraries have an owner, names and docstrings are plain."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"customers": 1, "features": 2, "models": 2, "training": 3, "serving": 3, "pipelines": 4}
#: Which files may import a heavy library.
LIBRARY_OWNERS = {
    "sqlalchemy": ["customers/"],
    "alembic": ["customers/"],
    "cryptography": ["customers/"],
    "feast": ["features/"],
    "ibis": ["features/"],
    "pyspark": ["features/engine/spark.py"],
    "implicit": ["models/recommender/matrix_factorisation.py", "models/benchmarks/next_basket.py"],
    "lightgbm": ["models/estimators/boosted_trees.py"],
    "torch": ["models/timing/network_training.py", "models/timing/adamw.py"],
    "mlflow": [f"models/registry/mlflow_{name}.py" for name in ("registry", "runs", "client")],
    "bentoml": ["serving/service.py"],
    "matplotlib": ["pipelines/reporting/plots.py"],
    "dagster": ["pipelines/definitions.py"],
    "jinja2": ["serving/console/"],
    "typer": ["pipelines/cli/"],
    "structlog": ["serving/logs.py"],
    "prometheus_client": ["serving/http/"],
    "opentelemetry": ["customers/tracing.py", "serving/http/tracing.py"],
}
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
#: Migrations keep the names that alembic gave them.
NAMED_FILES = [path for path in FILES if "versions" not in path.parts]
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
MOST_MODULES = 16

#: Forms of speaking: a name that has one says who talks, not what the thing is.
SPEECH = {
    "told", "tell", "tells", "telling", "said", "say", "says", "saying", "speak", "speaks", "speaker", "spoken",
    "heard", "hear", "hears", "seen", "unseen", "asked", "ask", "asks", "asking", "kept", "known", "found", "mine",
    "theirs", "evening", "tonight", "rehearsal", "twin", "gone",
}  # fmt: skip
#: A schema of the OpenAPI document: what became of the records of a request.
PUBLIC_NAMES = {"Kept"}
EMPTY_NAMES = {"utils", "helpers", "manager", "handler", "data", "info", "process", "common", "core", "misc"}
#: `schemas/common.py` holds what all request and response schemas share.
NAMED_BY_THEIR_FOLDER = {"serving/api/schemas/common.py"}

ARRAY_TYPES = re.compile(
    r"\b(pd\.DataFrame|pd\.Series|DataFrame|Series|np\.ndarray|NDArray|Floats|Flags|Ints|Codes|Frame|pa\.Table)\b"
)
#: A shape such as (n,) or (n_customers, n_days), or the columns, or what a row is.
STATES_SHAPE = re.compile(r"\(n\w*,|\bcolumns?\b|\brow per\b", re.IGNORECASE)
SHARE_WITH_SHAPES = 0.9

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILE_OF = {module_of(path): path for path in FILES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def top_level_imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def imported_modules(path: Path) -> set[str]:
    """Our own modules that a file imports, also inside functions and for types only."""
    imports = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            full_names = (f"{node.module}.{alias.name}" for alias in node.names)
            imports |= {name if name in FILE_OF else node.module for name in full_names}
    return imports & set(FILE_OF) - {module_of(path)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two or more nodes that reach one another (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for neighbour in graph.get(node, ()):
            if neighbour not in index:
                visit(neighbour)
                low[node] = min(low[node], low[neighbour])
            elif neighbour in stack:
                low[node] = min(low[node], index[neighbour])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return groups


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef))


def parameters(function: Function | ast.Lambda) -> list[str]:
    given = function.args
    starred = [each for each in (given.vararg, given.kwarg) if each]
    return [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *starred)]


def public_functions(path: Path) -> Iterator[Function]:
    """Functions and methods of public classes whose names have no underscore in front."""
    for node in parsed(path).body:
        inside = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for each in inside:
            if isinstance(each, Function) and not each.name.startswith("_"):
                yield each


def declared_types(function: Function) -> str:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [each.annotation for each in arguments] + [function.returns]
    return " ".join(ast.unparse(each) for each in annotations if each is not None)


def own_raises(function: Function) -> bool:
    """Whether the function itself, not one inside it, raises a new exception."""
    inner = {id(node) for each in ast.walk(function) if isinstance(each, Function) and each is not function
             for node in ast.walk(each)}  # fmt: skip
    return any(
        isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and id(node) not in inner
        for node in ast.walk(function)
    )


def speech_in(name: str) -> set[str]:
    return SPEECH & set(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_"))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_imports_only_from_floors_below(path: Path) -> None:
    floor = relative(path).split("/")[0]
    above = {name for name in top_level_imports(path) & set(FLOORS) if name != floor and FLOORS[name] >= FLOORS[floor]}
    assert not above, f"{relative(path)} must not import {', '.join(sorted(above))}"


def test_no_circle_of_files() -> None:
    assert circles({module_of(path): imported_modules(path) for path in FILES}) == []


def test_no_circle_of_folders() -> None:
    """Files directly on a floor are left out: they compose its folders, and the circles of files include them."""

    def folder(module: str) -> str:
        path = FILE_OF[module]
        parts = relative(path.parent).split("/")
        return "/".join(parts[:2]) if len(parts) > 1 else ""

    graph: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        here = folder(module_of(path))
        graph[here] |= {folder(module) for module in imported_modules(path)} - {here, ""}
    del graph[""]
    assert circles(dict(graph)) == []


def test_no_folder_is_crowded_or_holds_a_single_module() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in FILES:
        if path.name != "__init__.py":
            counts[relative(path.parent)] += 1
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}
    has_folders = {relative(path.parent.parent) for path in FILES}
    assert {folder for folder, count in counts.items() if count == 1 and folder not in has_folders} == set()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_heavy_library_is_imported_where_it_is_owned(path: Path) -> None:
    elsewhere = {
        name for name in top_level_imports(path) & set(LIBRARY_OWNERS)
        if not any(relative(path).startswith(owner) for owner in LIBRARY_OWNERS[name])
    }  # fmt: skip
    assert not elsewhere


def test_every_heavy_library_is_used() -> None:
    assert set(LIBRARY_OWNERS) <= set().union(*(top_level_imports(path) for path in FILES))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_begins_with_a_sentence(path: Path) -> None:
    sentence = ast.get_docstring(parsed(path))
    assert sentence
    assert sentence.strip().splitlines()[0].endswith((".", "?", ":", ","))


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_nothing_when_it_is_named(floor: str) -> None:
    assert top_level_imports(ROOT / floor / "__init__.py") == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert {relative(path) for path in FILES if path.stem in EMPTY_NAMES} <= NAMED_BY_THEIR_FOLDER


@pytest.mark.parametrize("path", [*NAMED_FILES, *TEST_FILES], ids=relative)
def test_no_name_is_a_form_of_speaking(path: Path) -> None:
    """Tests are whole sentences, which may speak; what helps them may not."""
    names = {path.stem, *(each.name for each in functions(path)), *(each.name for each in classes(path))} - PUBLIC_NAMES
    names = {name for name in names if not name.startswith("test_")}
    names |= {name for each in functions(path) for name in parameters(each)}
    names |= {name for each in ast.walk(parsed(path)) if isinstance(each, ast.Lambda) for name in parameters(each)}
    assert sorted(name for name in names if speech_in(name)) == []


@pytest.mark.parametrize("path", NAMED_FILES, ids=relative)
def test_no_function_is_called_of(path: Path) -> None:
    assert [each.name for each in functions(path) if each.name in ("of", "_of")] == []


def test_a_class_name_has_one_meaning() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for each in classes(path):
            files[each.name.lstrip("_")].add(relative(path))
    assert {name: sorted(where) for name, where in files.items() if len(where) > 1} == {}


def test_public_functions_over_arrays_and_frames_state_shape_or_columns() -> None:
    over_arrays = [
        (f"{relative(path)}:{each.lineno} {each.name}", bool(STATES_SHAPE.search(ast.get_docstring(each) or "")))
        for path in NAMED_FILES for each in public_functions(path) if ARRAY_TYPES.search(declared_types(each))
    ]  # fmt: skip
    silent = [name for name, states_shape in over_arrays if not states_shape]
    assert len(silent) <= (1 - SHARE_WITH_SHAPES) * len(over_arrays), "\n".join(silent)


def test_public_functions_that_raise_state_it() -> None:
    silent = [
        f"{relative(path)}:{each.lineno} {each.name}"
        for path in NAMED_FILES for each in public_functions(path)
        if own_raises(each) and not re.search(r"\b[Rr]aises?\b", ast.get_docstring(each) or "")
    ]  # fmt: skip
    assert not silent, "\n".join(silent)


def test_no_package_hides_under_the_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_feast_reads_no_file_but_its_definitions() -> None:
    """Feast imports every file below its folder that .feastignore does not match, and would register views twice.

    The pattern `[!d]*` matches files and folders alike, so nothing but definitions.py may begin with a d.
    """
    patterns = (ROOT / "features" / ".feastignore").read_text(encoding="utf-8").split()
    assert patterns == ["[!d]*"]
    entries = [path for path in (ROOT / "features").iterdir() if path.name.startswith("d")]
    assert [path.name for path in entries] == ["definitions.py"]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=relative)
def test_a_file_that_the_documentation_names_exists(page: Path) -> None:
    """A path is complete, or begins inside a floor, as in the table of the README."""
    named = set(re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|yaml|ipynb))`", page.read_text(encoding="utf-8")))
    starts = [ROOT, *(ROOT / floor for floor in FLOORS)]
    assert {path for path in named if not any((start / path).exists() for start in starts)} == set()
