"""The fuzzing of all that is read, as a part of the long form: how much of each kind there was, and what it came to."""

import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

LEAST_PAYLOADS = 50_000
_PAYLOADS = 56_000
"""What the tests share out; nine tenths of it are jobs' payloads."""
_TESTS = "tests/faults/test_fuzz.py"


@dataclass(frozen=True)
class Fuzzed:
    """What fuzzing came to.

    Attributes:
        seed: what all of it was made from.
        counts: how much there was, by kind.
        wrong: pytest's report of its failures; empty when there are none.
    """

    seed: int
    counts: Counter[str]
    wrong: str

    @property
    def command(self) -> str:
        """What repeats it."""
        return f"FAULTS_SEED={self.seed} FUZZ_PAYLOADS={_PAYLOADS} pytest {_TESTS}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        return f"fuzzing: {counts or 'nothing'}" + (f"\n{self.wrong}\nrepeat it: {self.command}" if self.wrong else "")


async def fuzz(seed: int) -> Fuzzed:
    """Run the tests that fuzz, in a process of their own, with more than they have in `make test`."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junit-xml={report}"]
        environment = {**os.environ, "FAULTS_SEED": str(seed), "FUZZ_PAYLOADS": str(_PAYLOADS)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            _TESTS,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)  # so that it ends its servers
                await process.wait()
        counts: Counter[str] = Counter()
        if report.exists():
            for counted in ET.parse(report).iter("property"):  # noqa: S314  # our own
                counts[counted.attrib["name"]] += int(counted.attrib["value"])
    wrong = "" if process.returncode == 0 else output.decode(errors="replace")[-4000:]
    if not wrong and counts["payloads"] < LEAST_PAYLOADS:
        wrong = f"no more than {counts['payloads']} payloads"
    return Fuzzed(seed, counts, wrong)
