"""`python tests/prose.py [PATH ...]`: report words that this project does not use, as `file:line: word`.

Without a path, all files of the project and the subjects of its commits are checked. Identifiers are split at
underscores and capitals, so `told_name` and `toldName` are both reported.
"""

import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BANNED = frozenset({
    "told", "tell", "tells", "said", "says", "say", "nought", "seldom", "whilst", "manieth", "bye", "goodbye",
    "somebody", "nobody",
})  # fmt: skip
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
SOME_NUMBER = re.compile(
    r"\bsome\s+(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozens?|twenty|thirty|forty|fifty"
    r"|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?)\b",
    re.IGNORECASE,
)
PYTHON_ESCAPE = re.compile(r"\\[a-zA-Z]")

SUFFIXES = frozenset({
    ".css", ".html", ".ini", ".js", ".json", ".lua", ".mako", ".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml",
})  # fmt: skip
NAMES = frozenset({".ci/run", ".env.example", "Dockerfile", "Makefile"})
IGNORED_FOLDERS = frozenset({".venv", ".git", "build", "dist", "node_modules", "__pycache__"})

ALLOWED = {
    ("tests/prose.py", "*"): "the list itself",
    ("tests/unit/test_prose.py", "*"): "plants the words to find them",
    ("worker/embedded/process.py", "nobody"): "the system's unprivileged account",
    ("worker/dashboard/static/vendor", "*"): "written by others, kept unchanged",
}
"""Words that are allowed: (file or folder, word or `*`) and why."""

SUBJECT_LENGTH = 72
SUBJECTS_SINCE = "2026-11-28T11:00:00"
"""Older commits were written under other rules."""


def words(text: str) -> Iterator[tuple[int, str]]:
    """The banned words in a text, each with its offset.

    >>> list(words("They tell_nobody, it isSaid after some ten jobs"))
    [(5, 'tell'), (10, 'nobody'), (23, 'Said'), (34, 'some ten')]
    >>> list(words("storytelling, essay, some jobs"))
    []
    """
    found = [(match.start(), match[0]) for match in WORD.finditer(text) if match[0].lower() in BANNED]
    found += [(match.start(), " ".join(match[0].split())) for match in SOME_NUMBER.finditer(text)]
    return iter(sorted(found))


def findings(source: str, *, python: bool) -> Iterator[tuple[int, str]]:
    """The banned words of a file, each with its line."""
    for line, text in _python_parts(source) if python else [(1, source)]:
        for offset, word in words(text):
            yield line + text.count("\n", 0, offset), word


def _python_parts(source: str) -> Iterator[tuple[int, str]]:
    """Identifiers, comments and strings, without the escapes in strings: `"\\tell"` holds no word of the list."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.string:
            yield token.start[0], PYTHON_ESCAPE.sub("  ", token.string)


def files(root: Path, paths: Iterable[str] = ()) -> list[str]:
    """The text files below the root, or those of them that the paths name or contain; in order."""
    found: set[str] = set()
    for place in [(Path.cwd() / path).resolve(strict=True) for path in paths] or [root]:
        if place.is_file():
            found.add(place.relative_to(root).as_posix())
        for folder, folders, inside in os.walk(place):
            folders[:] = [name for name in folders if name not in IGNORED_FOLDERS and not name.endswith("_cache")]
            found |= {Path(folder, name).relative_to(root).as_posix() for name in inside}
    return sorted(name for name in found if Path(name).suffix in SUFFIXES or name in NAMES)


def is_allowed(name: str, word: str) -> bool:
    """Whether the allow-list has this word for this file."""
    return any(
        (name == place or name.startswith(f"{place}/")) and allowed in ("*", word.lower()) for place, allowed in ALLOWED
    )


def check_files(root: Path, names: Iterable[str]) -> Iterator[str]:
    """One line for each banned word in these files."""
    for name in names:
        source = (root / name).read_text(encoding="utf-8")
        for line, word in findings(source, python=name.endswith(".py")):
            if not is_allowed(name, word):
                yield f"{name}:{line}: {word}"


def check_subjects(subjects: Iterable[str]) -> Iterator[str]:
    """One line for each commit subject that is too long."""
    for subject in subjects:
        if len(subject) > SUBJECT_LENGTH:
            yield f"commit subject: {len(subject)} characters, {SUBJECT_LENGTH} allowed: {subject}"


def _subjects(root: Path) -> list[str]:
    """The subjects of the commits since the rule began; none outside of a checkout."""
    if not (root / ".git").exists():
        return []
    command = ["git", "log", "--no-merges", f"--since={SUBJECTS_SINCE}", "--format=%s"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()


def main(paths: list[str]) -> int:
    """Print what is found; 1 if anything is."""
    found = list(check_files(ROOT, files(ROOT, paths)))
    if not paths:
        found += check_subjects(_subjects(ROOT))
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"{len(found)} words or subjects to change\n" if found else "prose: nothing to change\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
