"""The command: chooses scenarios, lets the systems take turns, shows, writes, and judges.

python -m benchmarks [SCENARIO …] [--quick] [--rounds N] [--json] [--write]
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import chart, claims, machine, report, show, summary
from benchmarks.environments import ROOT
from benchmarks.measure import Bench
from benchmarks.results import FIGURES, Results
from benchmarks.scenarios import Scenarios, Step
from benchmarks.servers import servers
from benchmarks.systems import NotMeasured, Programs
from worker.embedded import EmbeddedError

_NAMES = (
    "create_user",
    "refused",
    "mixed",
    "noop",
    "latency",
    "enqueue",
    "backlog",
    "processes",
    "idle",
    "transaction",
    "observed",
    "kills",
)
_ROUNDS, _ROUNDS_QUICK = 3, 1
# Kills are counted, not timed, and five already; a difference of some percent takes more turns to be seen.
_TURNS: Mapping[str, Callable[[int], int]] = {"kills": lambda _rounds: 1, "observed": lambda rounds: 3 * rounds}


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when every promise that could be judged was kept."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    console = Console(stderr=True)
    rounds = options.rounds or (_ROUNDS_QUICK if options.quick else _ROUNDS)
    with servers() as started:
        versions = started.versions()
        scenarios = Scenarios(Bench(started, Programs(started.folder, started.valkey.url)), options.quick)
        chosen = [(name, scenarios.named()[name]()) for name in _NAMES if name in options.scenarios]
        results = _measure(chosen, rounds, console)
    verdicts = claims.verdicts(results)
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    facts = machine.describe(versions, command)
    facts["rounds"] = f"{rounds}{', and short ones: these figures are rough' if options.quick else ''}"
    if options.json:
        judged = [{"claim": v.claim.text, "kept": v.kept, "found": v.value, "over": v.rival} for v in verdicts]
        print(json.dumps({"machine": facts, "figures": results.as_json(), "claims": judged}, indent=2))  # noqa: T201
    else:
        Console().print(*show.tables(results, verdicts), sep="\n")
    if options.write:
        (ROOT / "docs" / "benchmarks.md").write_text(report.render(results, verdicts, facts))
        (ROOT / "docs" / "benchmarks.svg").write_text(chart.render(results))
        readme = ROOT / "README.md"
        readme.write_text(summary.into(readme.read_text(), results, facts))
    return 1 if any(verdict.kept is False for verdict in verdicts) else 0


def _measure(chosen: Sequence[tuple[str, Sequence[Step]]], rounds: int, console: Console) -> Results:
    results = Results()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        turns = {name: _TURNS[name](rounds) if name in _TURNS else rounds for name, _ in chosen}
        task = progress.add_task("starting", total=sum(turns[name] * len(steps) for name, steps in chosen))
        for name, steps in chosen:
            for number in range(turns[name]):
                # There and back, so that whoever comes before leaves no mark on the same one each time.
                for step in steps if number % 2 == 0 else reversed(steps):
                    progress.update(task, description=f"{name}, round {number + 1} of {turns[name]}: {step.system}")
                    progress.console.print(_take(results, number, step), highlight=False, markup=False, soft_wrap=True)
                    progress.advance(task)
    return results


def _take(results: Results, number: int, step: Step) -> str:
    """Measure one system once; what came of it, in a line."""
    found = []
    try:
        for sample in step.run():
            results.add(number, sample)
            figure = FIGURES[sample.figure]
            remark = f" ({sample.remark})" if sample.remark else ""
            found.append(f"{sample.figure} {figure.show(sample.value)} {figure.unit}{remark}")
    except NotMeasured as error:
        for key in step.figures:
            results.remark(key, step.system, str(error))
        found.append(str(error))
    return f"{step.system}: {', '.join(found)}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"any of {', '.join(_NAMES)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="one round of short measurements, up to 100,000 jobs queued"
    )
    parser.add_argument("--rounds", type=int, help=f"how often the systems take turns; default: {_ROUNDS}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write docs/benchmarks.* and the README's table",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.scenarios) - set(_NAMES):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}: there are {', '.join(_NAMES)}")
    if options.write and options.scenarios:
        parser.error("--write takes all scenarios: leave their names out")
    options.scenarios = options.scenarios or list(_NAMES)
    return options


def _terminated(signum: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EmbeddedError as error:
        sys.exit(str(error))
