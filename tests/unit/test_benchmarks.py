"""The logic of the benchmarks: medians and ratios, rounds, workloads, recovery and reports. No servers."""

import xml.etree.ElementTree as ET  # only our own output is parsed
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks import chart, kills, report
from benchmarks.adapters import handlers, workload
from benchmarks.adapters.workload import POOL_SIZE, TableState
from benchmarks.catalog import KILLS, LATENCY, NOOP, RECOVERY_LIMIT_SECONDS, SCENARIOS, Scenario
from benchmarks.results import NotMeasured, Results, Sample, Summary
from benchmarks.runner import run
from benchmarks.systems import USERPOST
from benchmarks.throughput import describe_difference
from benchmarks.trials import Trial
from worker.settings import Settings

(RATE,) = NOOP.metrics
P50, P99 = LATENCY.metrics


def results(scenario: Scenario = NOOP, **rounds: list[float]) -> Results:
    made = Results()
    for system, values in rounds.items():
        for number, value in enumerate(values):
            made.add(scenario.metrics[0], system, number, Sample(value))
    return made


class TestResults:
    def test_ratio_compares_values_of_the_same_round(self) -> None:
        # Given a machine that becomes three times slower, for both systems
        measured = results(own=[900, 600, 300], taskiq=[300, 200, 100])

        # Then the ratio stays, though the values spread
        assert measured.ratio(RATE, "own", "taskiq") == 3
        assert measured.summary(RATE, "own") == Summary(600, 300, 900)

    def test_ratio_uses_the_rounds_that_both_systems_have(self) -> None:
        measured = results(own=[100, 200])
        measured.add(RATE, "taskiq", 1, Sample(50))

        assert measured.ratio(RATE, "own", "taskiq") == 4

    def test_ratio_is_missing_without_a_value_to_compare_with(self) -> None:
        assert results(own=[1]).ratio(RATE, "own", "taskiq") is None
        assert results(own=[1], taskiq=[0]).ratio(RATE, "own", "taskiq") is None

    def test_best_system_has_the_best_median(self) -> None:
        assert results(a=[1, 9, 2], b=[3, 3, 3]).best(RATE) == "b"
        assert results(LATENCY, a=[1, 9, 2], b=[3, 3, 3]).best(P50) == "a"
        assert results().best(RATE) is None

    def test_json_holds_values_in_the_order_of_rounds(self) -> None:
        measured = results(own=[3, 1, 2])
        measured.add_note(RATE, "taskiq", "not installable")

        systems = measured.to_json()["noop"]["systems"]

        assert systems["own"] == {"median": 2, "values": [3, 1, 2], "note": None}
        assert systems["taskiq"] == {"median": None, "values": [], "note": "not installable"}


class TestRounds:
    @pytest.fixture
    def calls(self) -> list[str]:
        return []

    @pytest.fixture
    def trial(self, calls: list[str]) -> Callable[[str], Trial]:
        def make(label: str) -> Trial:
            def measure() -> Sequence[Sample]:
                calls.append(label)
                return [Sample(len(calls))]

            return Trial(label, measure)

        return make

    def test_systems_alternate_and_reverse_in_every_second_round(
        self, calls: list[str], trial: Callable[[str], Trial]
    ) -> None:
        run([(NOOP, [trial("a"), trial("b")])], 3, lambda _line: None)

        assert "".join(calls) == "abbaab"

    def test_a_scenario_of_one_round_is_not_repeated(self, calls: list[str], trial: Callable[[str], Trial]) -> None:
        run([(replace(NOOP, one_round=True), [trial("a")])], 3, lambda _line: None)

        assert calls == ["a"]

    def test_a_system_that_cannot_be_measured_gets_a_note(self, trial: Callable[[str], Trial]) -> None:
        def fail() -> Sequence[Sample]:
            raise NotMeasured("the worker ended")

        measured = run([(NOOP, [Trial("a", fail), trial("b")])], 1, lambda _line: None)

        assert measured.note(RATE, "a") == "the worker ended"
        assert measured.summary(RATE, "a") is None
        assert measured.summary(RATE, "b") is not None


class TestKills:
    def test_kill_points_lie_within_the_load(self) -> None:
        shares = [share for share, _ in kills.KILL_POINTS]

        assert len(shares) == 5
        assert shares == sorted(shares)
        assert 0 < shares[0] < shares[-1] < 0.9

    def test_recovery_ends_with_the_last_job(self) -> None:
        recovery = kills.Recovery(10)
        recovery.observe(9, 0, 9, seconds=1)
        recovery.observe(10, 0, 10, seconds=8)
        recovery.observe(10, 1, 11, seconds=9)

        assert (recovery.done, recovery.doubled, recovery.seconds) == (10, 1, 8)

    def test_observation_goes_on_until_no_more_effects_follow(self) -> None:
        # Given a load that is done after eight seconds
        recovery = kills.Recovery(10)
        recovery.observe(10, 0, 10, seconds=8)

        # When another row appears before the quiet time is over
        assert recovery.observe(10, 1, 11, seconds=8 + kills.QUIET_SECONDS - 1)

        # Then the quiet time starts again
        assert recovery.observe(10, 1, 11, seconds=8 + 2 * kills.QUIET_SECONDS - 2)
        assert not recovery.observe(10, 1, 11, seconds=8 + 2 * kills.QUIET_SECONDS - 1)

    def test_observation_takes_the_whole_time_when_jobs_are_missing(self) -> None:
        recovery = kills.Recovery(10)

        assert recovery.observe(7, 0, 7, seconds=RECOVERY_LIMIT_SECONDS - 1)
        assert not recovery.observe(7, 0, 7, seconds=RECOVERY_LIMIT_SECONDS)
        assert (recovery.done, recovery.seconds) == (7, RECOVERY_LIMIT_SECONDS)

    def test_every_peer_has_the_lease_of_the_worker_except_where_its_defaults_are_measured(self) -> None:
        leases = {system.label: system.settings.get("LEASE_SECONDS") for system in kills.SYSTEMS if system.pins}

        assert leases.pop("stock arq") is None
        assert {float(str(lease)) for lease in leases.values()} == {Settings.model_fields["lease_seconds"].default}


class TestWorkload:
    def test_mixed_jobs_are_the_same_every_time(self) -> None:
        assert list(workload.jobs("mixed", 50)) == list(workload.jobs("mixed", 50))

    def test_every_cycle_has_the_proportions(self) -> None:
        jobs = list(workload.jobs("mixed", 100))

        for start in range(0, 100, 10):
            assert Counter(name for name, _ in jobs[start : start + 10]) == workload.PROPORTIONS

    def test_a_user_is_deleted_once_and_never_updated(self) -> None:
        jobs = list(workload.jobs("mixed", 1000))
        deleted = [fields["user_id"] for name, fields in jobs if name == "delete_user"]
        updated = {fields["user_id"] for name, fields in jobs if name == "update_user"}

        assert len(deleted) == len(set(deleted)) == workload.deleted_users(1000)
        assert not updated & set(deleted)

    def test_final_state_counts_what_the_jobs_leave_behind(self) -> None:
        state = workload.final_state("mixed", 100)

        assert (state.users, state.posts) == (POOL_SIZE + 30, POOL_SIZE + 20)
        assert 0 < state.renamed <= 20
        assert workload.final_state("create_user", 100) == TableState(users=100)

    @pytest.mark.parametrize("name", ["noop", "create_user", "mixed"])
    def test_workload_has_as_many_jobs_as_requested(self, name: str) -> None:
        assert len(list(workload.jobs(name, 30))) == 30

    @pytest.mark.parametrize(("name", "fields"), dict(workload.jobs("mixed", 10)).items())
    def test_statement_of_each_job_compiles(self, name: str, fields: dict[str, object]) -> None:
        statement, _ = handlers.statement(name, fields)

        assert str(statement).split()[0].lower() in {"insert", "update", "delete"}

    def test_difference_names_lost_and_doubled_rows(self) -> None:
        expected = TableState(users=100, posts=50, renamed=5, retitled=5)

        assert describe_difference(expected, expected) == ""
        assert describe_difference(replace(expected, users=1099, retitled=4), expected) == (
            "wrong rows: users 1,099 instead of 100, retitled 4 instead of 5"
        )


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, of several tables one after another."""
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class TestReport:
    def test_shows_faster_systems_and_those_without_a_value(self) -> None:
        measured = results(own=[7000, 7500, 8000], taskiq=[9000, 9000, 9000])
        measured.add_note(RATE, "SAQ", "not installable: it needs | another Python")

        assert rows(report.terminal(measured)) == [
            ["", "jobs/s", "× fastest", "notes"],
            ["own", "7,500 (7,000 to 8,000)", "0.83", ""],
            ["taskiq", "9,000", "1.00", ""],
            ["SAQ", "–", "", "not installable: it needs / another Python"],
        ]

    def test_shows_all_metrics_of_a_scenario_in_one_table(self) -> None:
        measured = results(LATENCY, own=[4], taskiq=[2])
        measured.add(P99, "own", 0, Sample(5))
        measured.add(P99, "taskiq", 0, Sample(10))

        assert rows(report.terminal(measured)) == [
            ["", "p50, ms", "× fastest", "p99, ms", "× fastest"],
            ["own", "4.0", "2.00", "5.0", "1.00"],
            ["taskiq", "2.0", "1.00", "10.0", "2.00"],
        ]

    def test_shows_the_limit_of_a_recovery_that_did_not_end(self) -> None:
        measured = Results()
        for system, values in {"own": (0, 1, 9.5), "arq": (8, 0, RECOVERY_LIMIT_SECONDS)}.items():
            for metric, value in zip(KILLS.metrics, values, strict=True):
                measured.add(metric, system, 0, Sample(value))

        assert rows(report.terminal(measured))[1:] == [
            ["own", "0", "1", "9.5"],
            ["arq", "8", "0", "not within 100 s"],
        ]

    def test_page_gets_new_tables_and_keeps_its_text(self) -> None:
        names = ("machine", *SCENARIOS)
        page = "".join(f"About {name}.\n<!-- {name} -->\n| old |\n<!-- end -->\n" for name in names)

        updated = report.update_page(page, results(own=[7500]), {"Python": "3.11"})

        assert "old" not in updated
        assert [line for line in updated.splitlines() if not line.startswith("|")] == [
            line for line in page.splitlines() if line != "| old |"
        ]
        assert ["Python", "3.11"] in rows(updated)
        assert ["own", "7,500", "1.00"] in rows(updated)

    def test_page_without_a_place_for_a_table_is_refused(self) -> None:
        with pytest.raises(ValueError, match="<!-- machine -->"):
            report.update_page("# Benchmarks", results(), {})

    def test_chart_has_a_bar_for_each_measured_system(self) -> None:
        measured = results(taskiq=[5])
        measured.add(RATE, USERPOST.label, 0, Sample(20))
        measured.add_note(RATE, "SAQ", "not installable")

        picture = ET.fromstring(chart.render(measured))  # noqa: S314  # our own output

        bars = [bar.attrib for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
        assert [bar["class"] for bar in bars] == ["other", "own"]
        assert float(bars[1]["width"]) == pytest.approx(4 * float(bars[0]["width"]), abs=0.2)
