"""Measure userpost-worker and other job queues, and print or write the results."""

import argparse
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks import chart, machine, report
from benchmarks.catalog import ALIASES, SCENARIOS
from benchmarks.runner import run
from benchmarks.servers import started_servers
from benchmarks.systems import OWN_LABELS, ROOT
from benchmarks.testbed import Testbed
from benchmarks.trials import Trials
from worker.embedded import EmbeddedError

_ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """Return 1 when userpost-worker could not be measured."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    rounds = options.rounds or (1 if options.quick else _ROUNDS)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, started_servers() as servers:
        versions = servers.versions()
        trials = Trials(Testbed(servers, Path(folder)), options.quick)
        plan = [(scenario, trials.of(scenario)) for name, scenario in SCENARIOS.items() if name in options.scenarios]
        results = run(plan, rounds, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201  # progress
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    remark = ", and short ones: these figures are rough" if options.quick else ""
    facts = machine.describe(versions, command, f"{rounds}{remark}")
    if options.json:
        print(json.dumps({"machine": facts, "results": results.to_json()}, indent=2))  # noqa: T201  # the output
    else:
        print(report.terminal(results))  # noqa: T201
    if options.write:
        page = ROOT / "docs" / "benchmarks.md"
        page.write_text(report.update_page(page.read_text(), results, facts))
        (ROOT / "docs" / "benchmarks.svg").write_text(chart.render(results))
    missing = [
        label for metric, notes in results.notes.items() for label in notes if not results.summary(metric, label)
    ]
    return 1 if OWN_LABELS.intersection(missing) else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = ", ".join(SCENARIOS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"any of {names}; default: all")
    parser.add_argument("--quick", action="store_true", help="one round of short measurements; the values are rough")
    parser.add_argument("--rounds", type=int, help=f"how often each system is measured; default: {_ROUNDS}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--write", action="store_true", help="write the tables and the chart of docs/benchmarks.md")
    options = parser.parse_args(arguments)
    options.scenarios = [ALIASES.get(name, name) for name in options.scenarios]
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"unknown scenario {', '.join(sorted(unknown))}; choose from {names}")
    if options.write and options.scenarios:
        parser.error("--write needs all scenarios: leave out their names")
    options.scenarios = options.scenarios or list(SCENARIOS)
    return options


def _exit_on_signal(signal_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal_number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EmbeddedError as error:
        sys.exit(str(error))
