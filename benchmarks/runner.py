"""Runs the trials of scenarios in rounds, in which the systems alternate."""

from collections.abc import Callable, Sequence

from benchmarks.catalog import Scenario
from benchmarks.results import NotMeasured, Results
from benchmarks.trials import Trial


def run(
    plan: Sequence[tuple[Scenario, Sequence[Trial]]], rounds: int, report_progress: Callable[[str], None]
) -> Results:
    """Measure every system once per round.

    The order of the systems is reversed in every second round, so that no system always follows the same one.
    """
    results = Results()
    for scenario, trials in plan:
        scenario_rounds = 1 if scenario.one_round else rounds
        for number in range(scenario_rounds):
            for trial in trials if number % 2 == 0 else reversed(trials):
                outcome = _run_trial(results, scenario, number, trial)
                report_progress(f"{scenario.name}, round {number + 1} of {scenario_rounds}: {trial.label} – {outcome}")
    return results


def _run_trial(results: Results, scenario: Scenario, number: int, trial: Trial) -> str:
    """Measure one system once; return the values as text."""
    try:
        samples = trial.measure()
    except NotMeasured as error:
        for metric in scenario.metrics:
            results.add_note(metric, trial.label, str(error))
        return str(error)
    found = []
    for metric, sample in zip(scenario.metrics, samples, strict=True):
        results.add(metric, trial.label, number, sample)
        note = f" ({sample.note})" if sample.note else ""
        found.append(f"{metric.heading}: {metric.format(sample.value)}{note}")
    return "; ".join(found)
