"""The benchmarks' own logic: medians and ratios, claims, the job plan, and what is written. No servers."""

import xml.etree.ElementTree as ET  # nothing foreign is parsed
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import chart, kills, report, summary
from benchmarks.claims import CLAIMS, Claim, judge, verdicts
from benchmarks.environments import PINS, requirements
from benchmarks.measure import difference
from benchmarks.peers import best, plan
from benchmarks.results import FIGURES, Results, Sample, Spread
from worker.settings import Settings

NOOP_BOUND = Claim("noop", "ours", 8000)
NOOP_RATIO = Claim("noop", "ours", 3, ("taskiq", "SAQ"))


def results(figure: str = "noop", **rounds: list[float]) -> Results:
    made = Results()
    for system, values in rounds.items():
        for number, value in enumerate(values):
            made.add(number, Sample(figure, system, value))
    return made


class TestRatios:
    def test_are_of_neighbours_in_a_round(self) -> None:
        # Given a machine that slows down threefold, for both
        measured = results(ours=[900, 600, 300], taskiq=[300, 200, 100])

        # Then the ratio does not spread, though the values do
        assert measured.ratio("noop", "ours", "taskiq") == Spread(3, 3, 3)
        assert measured.spread("noop", "ours") == Spread(600, 300, 900)

    def test_use_the_rounds_that_both_have(self) -> None:
        measured = results(ours=[100, 200])
        measured.add(1, Sample("noop", "taskiq", 50))

        assert measured.ratio("noop", "ours", "taskiq") == Spread(4, 4, 4)

    def test_of_nothing_are_none(self) -> None:
        assert results(ours=[1]).ratio("noop", "ours", "taskiq") is None
        assert results(ours=[1], taskiq=[0]).ratio("noop", "ours", "taskiq") is None

    def test_the_best_is_the_quickest(self) -> None:
        assert results(a=[1, 9, 2], b=[3, 3, 3]).best("noop", ["a", "b", "c"]) == "b"
        assert results("latency_p50", a=[1, 9, 2], b=[3, 3, 3]).best("latency_p50", ["a", "b"]) == "a"
        assert results().best("noop", ["a"]) is None


class TestClaims:
    @pytest.mark.parametrize(("values", "kept"), [([8000], True), ([7999], False), ([1, 8001, 9000], True)])
    def test_a_bound_is_judged_by_the_median(self, values: list[float], *, kept: bool) -> None:
        assert judge(NOOP_BOUND, results(ours=values)).kept is kept

    @pytest.mark.parametrize(("ours", "kept"), [(300, True), (299, False)])
    def test_a_ratio_is_to_the_best_of_the_others(self, ours: float, *, kept: bool) -> None:
        verdict = judge(NOOP_RATIO, results(ours=[ours], taskiq=[100], SAQ=[10]))

        assert (verdict.kept, verdict.rival) == (kept, "taskiq")

    def test_at_most_is_the_other_way_round(self) -> None:
        claim = Claim("latency_p50", "ours", 1.1, ("SAQ",), at_least=False)

        assert judge(claim, results("latency_p50", ours=[11], SAQ=[10])).kept
        assert not judge(claim, results("latency_p50", ours=[11.2], SAQ=[10])).kept

    def test_without_a_rival_nothing_is_judged(self) -> None:
        assert judge(NOOP_RATIO, results(ours=[1])).kept is None

    def test_what_must_never_happen_is_judged_by_the_worst_round(self) -> None:
        claim = Claim("kill_lost", "ours", 0, at_least=False, always=True)

        assert judge(claim, results("kill_lost", ours=[0, 0, 0])).kept
        assert not judge(claim, results("kill_lost", ours=[0, 1, 0])).kept
        assert claim.text.endswith("ours ≤ 0 jobs, in every round")

    def test_a_system_of_ours_that_failed_has_not_kept_it(self) -> None:
        measured = Results()
        measured.remark("noop", "ours", "the worker ended")

        assert judge(NOOP_BOUND, measured).kept is False

    def test_only_what_was_run_is_judged(self) -> None:
        assert {verdict.claim.figure for verdict in verdicts(results(ours=[1]))} == {"noop"}

    def test_all_are_of_figures_that_there_are(self) -> None:
        assert {claim.figure for claim in CLAIMS} <= set(FIGURES)
        assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)

    def test_the_total_of_more_processes_is_compared_with_every_fewer(self) -> None:
        rivals = {claim.system: claim.over for claim in CLAIMS if claim.figure == "processes"}

        assert rivals["8 processes"] == ("1 process", "2 processes", "4 processes")


class TestKills:
    def test_come_in_the_middle_of_the_load(self) -> None:
        shares = [share for share, _ in kills.MOMENTS]

        assert len(shares) == 5
        assert shares == sorted(shares)
        assert 0 < shares[0] < shares[-1] < 0.9

    def test_recovery_is_until_the_last_job_was_done(self) -> None:
        watch = kills.Watch(10)
        watch.see(1, done=9, doubled=0, rows=9)
        watch.see(8, done=10, doubled=0, rows=10)
        watch.see(9, done=10, doubled=1, rows=11)

        assert [sample.value for sample in watch.samples("ours", "")] == [0, 1, 8]

    def test_what_is_done_twice_afterwards_is_waited_for(self) -> None:
        # Given a load that is done after eight seconds
        watch = kills.Watch(10)
        watch.see(8, done=10, doubled=0, rows=10)

        # When another row comes before the quiet is long enough
        assert watch.see(8 + kills.QUIET_SECONDS - 1, done=10, doubled=1, rows=11)

        # Then it is waited for as long again, and no longer
        assert watch.see(8 + 2 * kills.QUIET_SECONDS - 2, done=10, doubled=1, rows=11)
        assert not watch.see(8 + 2 * kills.QUIET_SECONDS - 1, done=10, doubled=1, rows=11)

    def test_what_is_not_there_in_the_end_is_lost(self) -> None:
        watch = kills.Watch(10)

        # However quiet it is: the whole time is given
        assert watch.see(kills.PATIENCE_SECONDS - 1, done=7, doubled=0, rows=7)
        assert not watch.see(kills.PATIENCE_SECONDS, done=7, doubled=0, rows=7)
        assert [sample.value for sample in watch.samples("arq", "")] == [3, 0, kills.PATIENCE_SECONDS]

    def test_every_other_system_is_told_our_lease_except_where_its_defaults_are_measured(self) -> None:
        told = {system.label: system.settings.get("LEASE_SECONDS") for system in kills.SYSTEMS if system.peer}

        assert told.pop("stock arq") is None
        assert {float(str(seconds)) for seconds in told.values()} == {Settings.model_fields["lease_seconds"].default}


class TestPlan:
    def test_is_the_same_every_time(self) -> None:
        assert list(plan.jobs("mixed", 50)) == list(plan.jobs("mixed", 50))

    def test_every_ten_hold_the_proportion(self) -> None:
        jobs = list(plan.jobs("mixed", 100))

        for start in range(0, 100, 10):
            assert Counter(name for name, _ in jobs[start : start + 10]) == plan.PROPORTION

    def test_nothing_is_deleted_twice_or_changed_after_it_was_deleted(self) -> None:
        jobs = list(plan.jobs("mixed", 1000))
        deleted = [fields["user_id"] for name, fields in jobs if name == "delete_user"]
        changed = {fields["user_id"] for name, fields in jobs if name == "update_user"}

        assert len(deleted) == len(set(deleted)) == plan.deleted(1000)
        assert not changed & set(deleted)

    def test_what_is_left_adds_up(self) -> None:
        state = plan.after(100)

        assert (state.users, state.posts) == (plan.POOL + 30, plan.POOL + 20)
        assert 0 < state.renamed <= 20

    @pytest.mark.parametrize("scenario", ["noop", "create_user", "mixed"])
    def test_makes_as_many_as_were_asked_for(self, scenario: str) -> None:
        assert len(list(plan.jobs(scenario, 30))) == 30


@pytest.mark.parametrize(("name", "fields"), dict(plan.jobs("mixed", 10)).items())
def test_the_best_handlers_compile(name: str, fields: dict[str, object]) -> None:
    statement, _ = best.statement(name, fields)

    assert str(statement).split()[0].lower() in {"insert", "update", "delete"}


def test_every_requirement_is_pinned_exactly() -> None:
    for name in PINS:
        assert all("==" in pin for pin in requirements(name, "uvloop==1"))


def test_what_was_lost_or_done_twice_is_said() -> None:
    asked = plan.State(users=100, posts=50, renamed=5, retitled=5)

    assert difference(asked, asked) == ""
    assert difference(replace(asked, users=1099, retitled=4), asked) == (
        "not all was done as asked: users 1,099 instead of 100, retitled 4 instead of 5"
    )


class TestReport:
    def test_hides_nothing(self) -> None:
        # Given another system that is quicker, and one that could not be measured
        measured = results(ours=[7000, 7500, 8000], taskiq=[9000, 9000, 9000])
        measured.remark("noop", "Celery", "not installable: it needs | another Python")

        text = report.render(measured, verdicts(measured), {"Python": "3.11"})

        assert "| ours | 7,500 | 7,000 | 8,000 | 0.83 |  |" in text
        assert "| taskiq | 9,000 | 9,000 | 9,000 | 1.00 |  |" in text
        assert "× taskiq" in text
        assert "| Celery | – |  |  |  | not installable: it needs / another Python |" in text
        assert "ours ≥ 8,000 jobs/s | 7,500 jobs/s | missed |" in text

    def test_has_a_section_for_every_figure(self) -> None:
        measured = Results()
        for figure in FIGURES:
            measured.add(0, Sample(figure, "ours", 1))

        text = report.render(measured, [], {})

        assert text.count("\n## ") == len(FIGURES) - len(kills.FIGURES) + 2

    def test_says_what_a_kill_costs_in_one_table(self) -> None:
        # Given one that got over it, one that did not, and one that could not be measured
        measured = Results()
        costs = [("ours", 0, 9.5), ("ours", 1, 10.5), ("arq", 0, kills.PATIENCE_SECONDS)]
        for system, number, recovery in costs:
            for figure, value in zip(kills.FIGURES, (number, 1, recovery), strict=True):
                measured.add(number, Sample(figure, system, value))
        measured.remark(kills.LOST, "SAQ", "not installable")

        text = report.render(measured, [], {})

        assert "| ours | 0 (0 to 1) | 1 | 10.0 s (9.5 s to 10.5 s) |  |" in text
        assert "| arq | 0 | 1 | not within 100 s |  |" in text
        assert "| SAQ | – | – | – | not installable |" in text
        assert text.count("\n## ") == 2

    def test_says_nothing_of_kills_that_were_not_measured(self) -> None:
        assert "kill" not in report.render(results(ours=[1]), [], {})

    def test_the_chart_is_a_picture(self) -> None:
        measured = results(ours=[10, 20, 30], taskiq=[5])
        measured.remark("noop", "Celery", "not installable")

        picture = ET.fromstring(chart.render(measured))  # noqa: S314  # we wrote it

        bars = [bar.attrib for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
        assert [bar["class"] for bar in bars] == ["ours", "other"]
        assert float(bars[0]["width"]) == pytest.approx(4 * float(bars[1]["width"]), abs=0.2)


def test_the_readmes_table_is_put_into_its_place_and_nowhere_else() -> None:
    results = Results()
    results.add(0, Sample("create_user", "SAQ, usual", 400.4))
    results.add(0, Sample("noop", "ours", 11_000))
    results.add(0, Sample("kill_lost", "ours, a session a job", 0))
    results.add(0, Sample("kill_doubled", "ours, a session a job", 0))

    facts = {"command": "make bench", "date": "2026-01-01", "rounds": "3"}

    readme = summary.into(f"before\n{summary.BEGIN}old\n{summary.END}\nafter", results, facts)

    assert readme.startswith(f"before\n{summary.BEGIN}| ")
    assert readme.endswith(f"|\n\nBy `make bench` on 2026-01-01, rounds: 3.\n{summary.END}\nafter")
    assert "old" not in readme
    assert "| SAQ | 400 |  |  |  |  |" in readme
    assert "| ours, a session a job |  |  | 11,000 |  | 0, 0 |" in readme
    with pytest.raises(ValueError, match="no place"):
        summary.into("no marks", results, facts)
