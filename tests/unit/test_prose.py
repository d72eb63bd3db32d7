"""Tests of the check of words: planted words are found where they are, and nothing else is."""

from pathlib import Path

import pytest

from tests.prose import ALLOWED, ROOT, check_files, check_subjects, files, is_allowed

PYTHON = '''"""A docstring that
says a lot: some
ten lines."""

from a import tell_it as b  # nobody knows

class Told:
    """Storytelling, in an essay."""
    x = b.isSaid(f"{b.nought} whilst", "\\tell", say=1)
'''


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        (
            "a.py", PYTHON,
            [
                "2: says", "2: some ten", "5: tell", "5: nobody", "7: Told", "9: Said", "9: nought", "9: whilst",
                "9: say",
            ],
        ),
        ("a.lua", "-- gives\n-- somebody a turn\nlocal told = 1", ["2: somebody", "3: told"]),
        ("a.html", "<p>\nIt is said. {{ it.tells }}</p>", ["2: said", "2: tells"]),
        ("a.md", "Seldom, the so-manieth\n```sh\necho good-bye\n```", ["1: Seldom", "1: manieth", "3: bye"]),
        ("a.yml", "a: 1  # some 40 jobs\nb: some jobs, most say", ["1: some 40", "2: say"]),
    ],
)  # fmt: skip
def test_a_banned_word_is_reported_with_its_line(name: str, source: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(source)

    assert list(check_files(tmp_path, files(tmp_path))) == [f"{name}:{each}" for each in found]


def test_files_are_those_below_the_paths_without_caches_and_images(tmp_path: Path) -> None:
    for name in ("a/b.py", "a/.venv/c.py", "a/.mypy_cache/d.json", "a/e.png", "f.md", ".ci/run"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert files(tmp_path) == [".ci/run", "a/b.py", "f.md"]
    assert files(tmp_path, [str(tmp_path / "a")]) == ["a/b.py"]
    assert files(tmp_path, [str(tmp_path / "f.md")]) == ["f.md"]


def test_a_commit_subject_of_more_than_72_characters_is_reported() -> None:
    long = "x" * 73

    assert list(check_subjects(["Add a queue", "x" * 72, long])) == [
        f"commit subject: 73 characters, 72 allowed: {long}"
    ]


def test_allowed_words_are_those_of_files_that_exist() -> None:
    assert [place for place, _ in ALLOWED if not (ROOT / place).exists()] == []
    assert is_allowed("tests/prose.py", "told")
    assert not is_allowed("tests/prose.pyx", "told")
