"""The house itself.

Public names, floors' folders, what tracked files may say, dependencies and the content of the wheel.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import decisions
from tests.unit.tested_elsewhere import TESTED_ELSEWHERE

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "locas_agent": ROOT / "locas_agent",
    "locas_storage": ROOT / "storage" / "locas_storage",
    "langchain_locas": ROOT / "integrations" / "langchain_locas",
    "locas_frameworks": ROOT / "integrations" / "locas_frameworks",
    "locas_ray": ROOT / "integrations" / "locas_ray",
    "locas_vllm": ROOT / "integrations" / "locas_vllm",
}
MODULES = [module for folder in PACKAGES.values() for module in sorted(folder.rglob("*.py"))]
FOREIGN = re.compile(
    r"(?<![\w.])/(?:work|farm|root|home|Users|opt/pypi|opt/wheels)/"  # a path of somebody's machine
    r"|pypi\.org|pythonhosted\.org|npmjs\.org|deb\.debian\.org|download\.pytorch\.org"  # a registry's host
)


def own_files() -> list[Path]:
    """List what git tracks or would track: no environment, no build folder, no cache."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to know which files belong to the project")
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def exported(package: str) -> list[str]:
    names = getattr(importlib.import_module(package), "__all__", None)
    assert names is not None, f"{package}/__init__.py has no __all__"
    return list(names)


def public_names(package: str) -> set[str]:
    """Collect what `__init__.py` binds without a leading underscore, but no submodule imported on the way."""
    tree = ast.parse((PACKAGES[package] / "__init__.py").read_text(encoding="utf-8"))
    bound: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="__future__"):
                pass
            case ast.ImportFrom(module=module, names=aliases) if (module or "").partition(".")[
                0
            ] in PACKAGES or node.level:
                bound |= {alias.asname or alias.name for alias in aliases}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) if (
                node in tree.body
            ):
                bound.add(name)
            case ast.Assign(targets=targets) if node in tree.body:
                bound |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in bound if not name.startswith("_")}


def isort_order(name: str) -> tuple[int, str]:
    """Order of Ruff's RUF022: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


@pytest.mark.parametrize("package", ["locas_agent", "locas_storage"])
def test_all_names_everything_public_and_nothing_else(package: str) -> None:
    names = exported(package)
    assert names, f"{package} exports nothing"
    assert {name for name in names if not name.startswith("__")} == public_names(package)
    module = importlib.import_module(package)
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", ["locas_agent", "locas_storage", "langchain_locas"])
def test_all_is_sorted_and_free_of_repeats(package: str) -> None:
    names = exported(package)
    assert names == sorted(set(names), key=isort_order)


def test_no_public_class_has_the_name_of_another() -> None:
    """A name that stands for two things is imported from the wrong place sooner or later."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(module.relative_to(ROOT)))
    assert len(homes) > 100
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


@pytest.mark.parametrize("package", ["locas_agent", "locas_storage"])
def test_every_public_class_and_function_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    exports = {name: getattr(module, name) for name in exported(package)}
    # `__doc__` and not inspect.getdoc, which would borrow a parent's; dataclass writes a bare signature where there is
    # none.
    bare = [
        name
        for name, value in exports.items()
        if (inspect.isclass(value) or inspect.isroutine(value))
        and (not value.__doc__ or value.__doc__.startswith(f"{name}("))
    ]
    assert bare == []


@pytest.mark.parametrize("folder", ["storage", "integrations"])
def test_folder_beside_a_package_is_no_package(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_that_it_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_module_starts_with_a_docstring(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def imports(package: str) -> dict[str, set[str]]:
    """Return which modules of a package each of them imports, those under TYPE_CHECKING and inside functions too."""
    root = PACKAGES[package]
    names: dict[str, Path] = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join([package, *parts]).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names if alias.name in names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {each for each in whole if each in names}
                if node.module in names and not whole <= names.keys():
                    graph[name].add(node.module)
    return graph


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_goes_in_a_circle(package: str) -> None:
    graph = imports(package)
    assert sum(map(len, graph.values())) > 1  # it did look
    while free := [name for name, wanted in graph.items() if not wanted & graph.keys()]:
        for name in free:
            del graph[name]
    # What is left stands on a circle, or above one.
    assert sorted(graph) == []


MOST_MODULES = {
    "locas_agent/cli": 20,
    "integrations/langchain_locas": 20,
}  # one command, one adapter each; others hold 12


def test_no_folder_holds_more_modules_than_the_eye_takes_in() -> None:
    counts: dict[str, int] = {}
    for module in MODULES:
        if not module.name.startswith("__"):
            folder = str(module.parent.relative_to(ROOT))
            counts[folder] = counts.get(folder, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES.get(folder, 12)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/shared/x",
        "open('/" + "home/ada/x')",
        "https://" + "pypi" + ".org/simple",
        "files." + "pythonhosted" + ".org",
    ],
)
def test_pattern_finds_a_foreign_line(line: str) -> None:
    assert FOREIGN.search(line)


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    found: list[str] = []
    read = 0
    for path in own_files():
        content = path.read_bytes()
        if b"\0" in content[:4096]:
            continue  # binary: weights, compressed prose
        read += 1
        lines = content.decode("utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if FOREIGN.search(line)]
    assert found == []
    assert read > 10  # it did look


def has_own_tests(package: str, inner: tuple[str, ...], stem: str) -> bool:
    """Tell whether a module has a test file of its name, or of its folder's and its own, where it is looked for.

    A package of `locas_agent` has a folder of its name, the modules beside those have `agent`.
    """
    place = package.removeprefix("locas_").removesuffix("_locas")  # storage, langchain
    if package == "locas_agent":
        place = inner[0] if inner else "agent"
    folder = ROOT / "tests" / "unit" / place
    names = {f"test_{stem}.py", *(f"test_{above}_{stem}.py" for above in inner)}
    return any(path.name in names for path in folder.rglob("test_*.py"))


def test_every_module_has_a_test_of_its_name_or_says_where_it_is_tested() -> None:
    needed, nowhere = set(), []
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if path.stem in ("__init__", "__main__") or "migrations" in parts:
                continue
            if has_own_tests(package, parts[:-1], path.stem):
                continue
            name = ".".join((package, *parts))
            fitting = [line for line in TESTED_ELSEWHERE if name == line or name.startswith(f"{line}.")]
            if fitting == ["locas_agent"] and len(parts) > 1:
                fitting = []  # a package of its own has a line of its own
            needed |= {max(fitting, key=len)} if fitting else set()
            nowhere += [] if fitting else [name]
    assert nowhere == []
    assert sorted(set(TESTED_ELSEWHERE) - needed) == []
    assert [place for place in TESTED_ELSEWHERE.values() if not (ROOT / place).exists()] == []


def test_no_line_is_wider_than_the_page() -> None:
    """Ruff leaves out the pragmas at the end of a line; a reader does not."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in own_files()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert wide == []


def test_readme_is_read_in_one_sitting() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


def test_architecture_names_every_package_in_one_short_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]  # without the head
    assert len(rows) <= 16
    named = {name.removesuffix("/") for row in rows for name in row.split(" | ")[0].split("`")[1::2]}
    folders = {path.parent.name for path in (ROOT / "locas_agent").glob("*/__init__.py")}
    assert (
        named - {"locas_agent/*.py", "locas_storage", "langchain_locas", "locas_frameworks", "locas_ray", "locas_vllm"}
        == folders
    )


def test_index_lists_every_decision() -> None:
    page = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert page == decisions.index(), "run: python -m scripts.decisions"
    assert len(decisions.files()) > 70
    assert decisions.sections(page) == []
    assert decisions.sections(f"{page}\n## 2026-01-01 · One\n\ntext\n\n## 2026-01-02 · Two\n\nmore\n") == [
        ("2026-01-01 · One", "text"),
        ("2026-01-02 · Two", "more"),
    ]


def test_decisions_of_two_branches_get_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, page = tmp_path / "decisions", tmp_path / "decisions.md"
    folder.mkdir()
    for name in ("0001-one", "0002-first", "0002-second", "0003-third"):
        (folder / f"{name}.md").write_text(f"# 2026-01-01 · {name}\n", encoding="utf-8")
    page.write_text("## 2026-01-02 · New one\n\ntext\n", encoding="utf-8")
    monkeypatch.setattr(decisions, "FOLDER", folder)
    monkeypatch.setattr(decisions, "INDEX", page)
    decisions.main()
    assert [path.name for path in decisions.files()] == [
        "0001-one.md",
        "0002-first.md",
        "0003-third.md",
        "0004-second.md",
        "0005-new-one.md",
    ]
    assert page.read_text(encoding="utf-8") == decisions.index()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "GLOSSARY.md", *(ROOT / "docs").rglob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    parsed = [Requirement(line) for line in lines]
    return {requirement.name: requirement for requirement in parsed}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_says_what_needs_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entries = dict(re.findall(r'^    "([\w-]+)[^"]*",(.*)$', text, re.MULTILINE))
    assert set(requirements()) <= set(entries)
    silent = [name for name, rest in entries.items() if name in requirements() and not re.match(r" +# \w", rest)]
    assert silent == []


def test_pins_lie_inside_the_ranges() -> None:
    pinned = {canonical(name): version for name, version in pins().items()}
    assert pinned["torch"] == "2.13.0"
    ranges = {
        canonical(name): requirement.specifier
        for name, requirement in requirements().items()
        if canonical(name) in pinned
    }
    assert len(ranges) > 10  # most of what is asked for is pinned
    assert [name for name, wanted in ranges.items() if not wanted.contains(pinned[name])] == []


def test_pins_are_plain_versions() -> None:
    # No local build tag, no URL, no path, no editable line: they hold on every machine.
    assert [
        name for name, version in pins().items() if not re.fullmatch(r"\d+(\.\d+)*(\.?(post|rc|a|b)\d+)?", version)
    ] == []


@pytest.mark.slow
def test_wheel_holds_the_packages_and_their_data(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in PACKAGES.values():
        shutil.copytree(folder, tmp_path / folder.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "wheels"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in shipped} == set(PACKAGES)
    expected = {
        (Path(package) / path.relative_to(folder)).as_posix()
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == expected  # py.typed, migrations and backbone/tiny among them
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped
