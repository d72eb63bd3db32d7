"""The tests with hostile input as a part of the long form, in a process of their own."""

import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

MIN_PAYLOADS = 50_000
_PAYLOADS = 56_000
"""For all tests; nine tenths are payloads of jobs."""
_TESTS = "tests/faults/test_fuzz.py"


@dataclass(frozen=True)
class FuzzResult:
    """The result of the tests.

    Attributes:
        seed: repeats the input.
        counts: the amount of input, by kind.
        failures: pytest's report; empty if there are none.
    """

    seed: int
    counts: Counter[str]
    failures: str

    @property
    def command(self) -> str:
        """The command that repeats the tests."""
        return f"FAULTS_SEED={self.seed} FUZZ_PAYLOADS={_PAYLOADS} pytest {_TESTS}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        return f"fuzzing: {counts or 'nothing'}" + (
            f"\n{self.failures}\nrepeat it: {self.command}" if self.failures else ""
        )


async def run_fuzz_tests(seed: int) -> FuzzResult:
    """Run the tests with more input than `make test` gives them."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junit-xml={report}"]
        environment = {**os.environ, "FAULTS_SEED": str(seed), "FUZZ_PAYLOADS": str(_PAYLOADS)}
        pipe, stdout = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", *options, _TESTS, env=environment, stdout=pipe, stderr=stdout
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)  # pytest stops its servers
                await process.wait()
        counts: Counter[str] = Counter()
        if report.exists():
            for counted in ET.parse(report).iter("property"):  # noqa: S314  # our own
                counts[counted.attrib["name"]] += int(counted.attrib["value"])
    failures = "" if process.returncode == 0 else output.decode(errors="replace")[-4000:]
    if not failures and counts["payloads"] < MIN_PAYLOADS:
        failures = f"only {counts['payloads']} payloads"
    return FuzzResult(seed, counts, failures)
