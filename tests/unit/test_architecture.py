"""docs/architecture.md shows the path of a job: the imports of the code keep it true."""

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
STAGES = ("claimer", "dispatcher", "executor", "settler")


def imports(path: Path) -> set[str]:
    """The modules that a file imports, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def engine_imports(stage: str) -> set[str]:
    return {
        module.removeprefix("worker.engine.")
        for module in imports(ROOT / "worker" / "engine" / f"{stage}.py")
        if module.startswith("worker.engine.")
    }


def test_each_stage_imports_the_next_and_no_earlier_one() -> None:
    for place, stage in enumerate(STAGES):
        stages = engine_imports(stage) & {*STAGES}
        assert stages == set(STAGES[place + 1 : place + 2]), stage


def test_no_stage_imports_the_pipeline_or_the_worker() -> None:
    for path in (ROOT / "worker" / "engine").glob("*.py"):
        if path.stem not in {"pipeline", "worker"}:
            assert not imports(path) & {"worker.engine.pipeline", "worker.engine.worker"}, path.name


def test_the_page_shows_the_stages_in_their_order() -> None:
    path = PAGE.partition("## The path of one")[2].partition("##")[0]
    assert tuple(name for name in re.findall(r"`worker/engine/(\w+)\.py` \|", path) if name in STAGES) == STAGES
    arrows = set(re.findall(r"(\w+)(?:\[[^\]]*\])? --> (\w+)", PAGE.partition("flowchart")[2].partition("```")[0]))
    assert set(pairwise(STAGES)) <= arrows
    assert not {(later, earlier) for earlier, later in arrows} & arrows


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:worker|producers)/[\w/.]*)`", PAGE))))
def test_a_path_on_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_page_names_at_most_two_files_for_a_question() -> None:
    rows = re.findall(r"^\| (.+\?) \| (.+) \|$", PAGE.partition("## Where to look")[2], re.MULTILINE)
    assert len(rows) == 15
    assert all(1 <= len(files.split(", ")) <= 2 for _, files in rows)


@pytest.mark.parametrize("name", ["worker.model", "worker.queue", "worker.engine"])
def test_a_package_below_the_handlers_loads_none_of_them(name: str) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module({name!r})\n"
        f"for module in pkgutil.walk_packages(package.__path__, {name + '.'!r}): importlib.import_module(module.name)\n"
        "print([name for name in sys.modules if name.startswith(('worker.jobs', 'worker.database.users'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
