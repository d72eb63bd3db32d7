"""README.md matches the code.

`python tests/unit/test_readme.py` prints its table of settings.
"""

import re
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest
from pydantic_core import PydanticUndefined
from typer.main import get_group

import producers
from producers import errors
from worker import cli
from worker.commands import dead
from worker.settings import Settings, allowed, variable

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DECISIONS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "decisions").glob("*.md"))

OTHERS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/operations.md", "deploy/README.md"]


def settings_table() -> str:
    """The table of settings in Markdown."""
    lines = ["| variable | default | takes | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        value = str(field.default).lower() if field.annotation is bool else field.default
        default = "none, needed" if field.default is PydanticUndefined else "none" if value is None else f"`{value}`"
        takes = (
            allowed(name)
            if allowed(name).startswith(("a ", "true"))
            else "a word"
            if get_origin(field.annotation) is Literal
            else "text"
        )
        lines.append(f"| `{variable(name)}` | {default} | {takes} | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_settings_matches_the_code() -> None:
    found = re.search(r"<!-- settings: .* -->\n(.*)<!-- /settings -->", README, re.DOTALL)

    assert found is not None
    assert found[1] == settings_table(), "paste what `python tests/unit/test_readme.py` prints"


@pytest.mark.parametrize("document", [*OTHERS, *DECISIONS])
def test_relative_links_lead_to_files(document: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text())
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]

    assert [link for link in local if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("document", OTHERS)
def test_links_to_a_section_name_an_existing_one(document: str) -> None:
    page = (ROOT / document).read_text()
    sections = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }

    assert {link[1:] for link in re.findall(r"\]\((#[^)]+)\)", page)} <= sections


def test_every_error_of_producers_is_in_the_tree_and_no_other() -> None:
    tree = README.partition("### Errors")[2].partition("###")[0]
    drawn = set(re.findall(r"^    (?:[│├└ ]*── )?([A-Z]\w+)", tree, re.MULTILINE))
    raised = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.ProducerError)
    }

    assert drawn == raised
    assert drawn <= set(producers.__all__)


def test_every_command_is_in_the_table_and_no_other() -> None:
    listed = set(re.findall(r"^\| `worker ([a-z-]+)", README, re.MULTILINE))

    assert listed == get_group(cli.app).commands.keys()


def test_every_command_of_dead_letters_is_in_the_table_and_no_other() -> None:
    row = re.search(r"^\| `worker dead (.*?)` \|", README, re.MULTILINE)

    assert row is not None
    assert set(row[1].split("`, `")) == get_group(dead.app).commands.keys()


if __name__ == "__main__":
    sys.stdout.write(settings_table())
