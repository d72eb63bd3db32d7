"""A trace leads from the producer of a job through its attempts to their statements, and holds no values."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import structlog
from arq.worker import Worker
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producers import DeleteUser, Producer, SyncProducer, keys, wire
from tests.integration.conftest import Eventually, Logged, Sql
from tests.integration.running import BREAK, MEND, burst, run_all, settings_of, user, working
from tests.jobs import HASH
from tests.waiting import PATIENCE_SECONDS
from worker import app
from worker.observability.tracing.wrappers import Tracing
from worker.settings import Settings

SECRETS = ("@example.com", "argon2", "lovelace", "hopper", "dijkstra")


class Spans:
    """The finished spans, as they would be exported."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def below(self, parent: ReadableSpan) -> list[str]:
        """The names of the children of a span, in order of their start."""
        children = [span for span in self.all() if span.parent and span.parent.span_id == parent.context.span_id]
        return [span.name for span in sorted(children, key=lambda span: span.start_time or 0)]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Spans are kept in memory, by a provider that the application has set up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    spans = Spans(exporter)
    yield spans
    exported = "".join(span.to_json() for span in spans.all())
    assert exported
    assert [secret for secret in SECRETS if secret in exported] == []


@pytest.fixture
def settings(redis_url: str, database_url: str, logging_kept: None) -> Settings:
    return settings_of(redis_url, database_url)


def tracer() -> trace.Tracer:
    return trace.get_tracer("application")


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def put(url: str, job_id: str, headers: dict[str, str], name: str = "lovelace") -> None:
    """Enqueue a job as a client in another language does."""
    fields = user(name).model_dump_json().encode()
    payload = wire.encode(
        "create_user", fields, enqueue_time_ms=round(time.time() * 1000), headers=wire.headers_json(headers)
    )
    with redis.Redis.from_url(url) as client:
        client.set(keys.job(job_id), payload)
        client.zadd(keys.DEFAULT_QUEUE, {job_id: round(time.time() * 1000)})


async def test_one_trace_leads_from_the_application_to_the_statements(
    spans: Spans, settings: Settings, redis_url: str, logged: Logged
) -> None:
    async with Producer(redis_url) as producer:
        with tracer().start_as_current_span("request"):
            job = await producer.enqueue(user("lovelace"))
    with logged() as lines:
        await burst(settings)

    request, send, process = spans.one("request"), spans.one("send create_user"), spans.one("process create_user")
    assert spans.below(request) == ["send create_user"]
    assert spans.below(send) == ["process create_user"]
    assert spans.below(process) == ["INSERT users", "INSERT job_ledger", "COMMIT"]
    assert {span.context.trace_id for span in spans.all()} == {request.context.trace_id}
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert send.status.status_code is process.status.status_code is StatusCode.UNSET
    assert attributes(send) == {
        "messaging.system": "arq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": keys.DEFAULT_QUEUE,
        "messaging.message.id": job.job_id,
    }
    recorded = attributes(process)
    assert 0 < recorded.pop("job.wait_seconds") < 30
    assert recorded == {
        "messaging.system": "arq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": keys.DEFAULT_QUEUE,
        "messaging.message.id": job.job_id,
        "job.name": "create_user",
        "job.attempt": 1,
        "job.outcome": "done",
    }
    insert = spans.one("INSERT users")
    assert insert.kind is SpanKind.CLIENT
    assert attributes(insert)["db.system.name"] == "postgresql"
    assert attributes(insert)["db.query.text"].startswith("INSERT INTO users (")
    (done,) = [line for line in lines() if line["event"] == "job_done"]
    assert done["trace_id"] == f"{process.context.trace_id:032x}"
    assert done["span_id"] == f"{process.context.span_id:016x}"


async def test_a_retry_has_its_own_span_in_the_same_trace(
    spans: Spans, settings: Settings, sql: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.settler.backoff_seconds", lambda _attempt: 0.01)
    await run_all(sql, BREAK)

    async def attempted() -> bool:
        return bool(spans.named("process create_user"))

    async with Producer(settings.redis_url.get_secret_value()) as producer, working(settings):
        job = await producer.enqueue(user("lovelace"))
        await eventually(attempted)
        await sql(MEND)
        await job.result(timeout=PATIENCE_SECONDS)

    send, *attempts = [*spans.named("send create_user"), *spans.named("process create_user")]
    assert len(attempts) >= 2
    assert {span.parent.span_id for span in attempts if span.parent} == {send.context.span_id}
    assert [attributes(span)["job.attempt"] for span in attempts] == list(range(1, len(attempts) + 1))
    first, last = attempts[0], attempts[-1]
    assert attributes(first)["job.outcome"] == "retry"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "DBAPIError from Error[P0001] from RaiseError[P0001]"
    assert (attributes(last)["job.outcome"], last.status.status_code) == ("done", StatusCode.UNSET)
    failed = spans.named("INSERT users")[0]
    assert attributes(failed)["db.response.status_code"] == "P0001"
    assert failed.status.status_code is StatusCode.ERROR
    assert [span.events for span in spans.all() if span.events] == []


async def test_a_rejection_is_not_an_error(spans: Spans, settings: Settings, redis_url: str) -> None:
    async with Producer(redis_url) as producer:
        await producer.enqueue(user("lovelace"), ordering_key="one")
        await producer.enqueue(user("lovelace"), ordering_key="one")
    await burst(settings)

    done, rejected = spans.named("process create_user")
    assert attributes(done)["job.outcome"] == "done"
    assert (attributes(rejected)["job.outcome"], attributes(rejected)["job.code"]) == ("rejected", "conflict")
    assert rejected.status.status_code is StatusCode.UNSET


async def test_a_batch_from_one_call_is_one_span_below_that_call(
    spans: Spans, redis_url: str, database_url: str, logged: Logged
) -> None:
    async with Producer(redis_url) as producer:
        await producer.enqueue_many([user(f"hopper{number}") for number in range(20)])
    with logged() as lines:
        await burst(settings_of(redis_url, database_url, batch_size=20, concurrency=16))

    send, process = spans.one("send jobs"), spans.one("process create_user")
    assert attributes(send)["messaging.batch.message_count"] == 20
    assert spans.below(send) == ["process create_user"]
    assert spans.below(process) == ["INSERT users", "INSERT job_ledger", "COMMIT"]
    assert attributes(process)["messaging.batch.message_count"] == attributes(process)["job.outcomes.done"] == 20
    assert {span.context.trace_id for span in spans.all()} == {send.context.trace_id}
    span_ids = {line["span_id"] for line in lines() if line["event"] == "job_done"}
    assert span_ids == {f"{process.context.span_id:016x}"}


async def test_a_batch_from_many_calls_has_links_to_them(
    spans: Spans, redis_url: str, database_url: str, logging_kept: None
) -> None:
    async with Producer(redis_url) as producer:
        for name in ("hopper", "lovelace", "dijkstra"):
            await producer.enqueue(user(name))
    await burst(settings_of(redis_url, database_url, batch_size=20, concurrency=16))

    process = spans.one("process create_user")
    assert process.parent is None
    assert {link.context.span_id for link in process.links} == {
        span.context.span_id for span in spans.named("send create_user")
    }
    assert spans.below(process) == ["INSERT users", "INSERT job_ledger", "COMMIT"]


async def test_a_job_split_from_its_batch_has_a_span_in_the_trace_of_its_producer(
    spans: Spans, redis_url: str, database_url: str, logging_kept: None
) -> None:
    async with Producer(redis_url) as producer:
        for name in ("hopper", "lovelace", "lovelace"):
            await producer.enqueue(user(name))
    await burst(settings_of(redis_url, database_url, batch_size=20, concurrency=16))

    (batch,) = [span for span in spans.named("process create_user") if len(span.links) == 3]
    alone = [span for span in spans.named("process create_user") if span is not batch]
    sent = {span.context.span_id: span.context.trace_id for span in spans.named("send create_user")}
    assert alone
    for span in alone:
        assert span.parent
        assert sent[span.parent.span_id] == span.context.trace_id
        assert [link.context.span_id for link in span.links] == [batch.context.span_id]
    counted = sum(count for name, count in attributes(batch).items() if name.startswith("job.outcomes."))
    assert counted == 3


async def test_a_client_in_any_language_can_start_the_trace(spans: Spans, settings: Settings, redis_url: str) -> None:
    put(redis_url, "from-afar", {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01"})
    await burst(settings)

    process = spans.one("process create_user")
    assert process.context.trace_id == 0xABC
    assert process.parent
    assert process.parent.span_id == 0xDEF


async def test_a_job_that_its_producer_does_not_sample_is_not_traced(
    spans: Spans, settings: Settings, redis_url: str, sql: Any
) -> None:
    put(redis_url, "unsampled", {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-00"}, "hopper")
    put(redis_url, "sampled", {"traceparent": f"00-{0xABD:032x}-{0xDEF:016x}-01"})
    await burst(settings)

    assert await sql("SELECT count(*) FROM users") == 2
    assert {span.context.trace_id for span in spans.all()} == {0xABD}


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "lovelace@example.com",
        f"00-{0:032x}-{0xDEF:016x}-01",
        f"ff-{0xABC:032x}-{0xDEF:016x}-01",
        f"00-{0xABC:032x}-{0xDEF:016x}-01-lovelace@example.com",
        f"00-{0xABC:032x}-{0xDEF:016x}-01\n{{}}\x00",
        "00-" + "٣" * 32 + f"-{0xDEF:016x}-01",
        "0" * 512,
    ],
)
async def test_an_invalid_trace_context_is_ignored(
    spans: Spans, settings: Settings, redis_url: str, sql: Any, hostile: str
) -> None:
    put(redis_url, "hostile", {"traceparent": hostile, "tracestate": "lovelace=lovelace@example.com"})
    await burst(settings)

    assert await sql("SELECT count(*) FROM users") == 1
    process = spans.one("process create_user")
    assert process.parent is None
    assert spans.below(process) == ["INSERT job_ledger", "INSERT users", "UPDATE job_ledger", "COMMIT"]


async def test_unknown_names_and_invalid_ids_are_not_in_the_spans(
    spans: Spans, settings: Settings, redis_url: str
) -> None:
    now_ms = round(time.time() * 1000)
    with redis.Redis.from_url(redis_url) as client:
        for job_id in ("sound", "lovelace@example.com, hopper"):
            client.set(keys.job(job_id), wire.encode("lovelace", b"{}", enqueue_time_ms=now_ms))
            client.zadd(keys.DEFAULT_QUEUE, {job_id: now_ms})
    await burst(settings)

    attempts = spans.named("process unknown")
    assert [attributes(span)["job.outcome"] for span in attempts] == ["dead", "dead"]
    assert sorted(attributes(span).get("messaging.message.id", "") for span in attempts) == ["", "sound"]


async def test_a_blocking_producer_continues_the_trace_of_its_caller(
    spans: Spans, settings: Settings, redis_url: str
) -> None:
    def enqueue() -> None:
        with tracer().start_as_current_span("request"), SyncProducer(redis_url) as producer:
            producer.create_user(email="lovelace@example.com", username="lovelace", hashed_password=HASH)

    await asyncio.to_thread(enqueue)
    await burst(settings)

    assert spans.below(spans.one("request")) == ["send create_user"]
    assert spans.below(spans.one("send create_user")) == ["process create_user"]


async def test_a_repeated_call_in_another_span_is_the_same_job(
    spans: Spans, settings: Settings, redis_url: str
) -> None:
    async with Producer(redis_url) as producer:
        first = await producer.enqueue(user("lovelace"), idempotency_key="sign-up-1")
        second = await producer.enqueue(user("lovelace"), idempotency_key="sign-up-1")
    await burst(settings)

    assert (first.accepted, second.accepted) == (True, False)
    first_send, _ = spans.named("send create_user")
    process = spans.one("process create_user")
    assert process.parent
    assert process.parent.span_id == first_send.context.span_id


async def test_a_failed_enqueue_records_only_the_type_of_its_error(
    spans: Spans, settings: Settings, redis_url: str
) -> None:
    async with Producer(redis_url, max_queued=1) as producer:
        await producer.enqueue(user("lovelace"))
        with pytest.raises(Exception, match="queue"):
            await producer.enqueue(user("hopper"))

    _, failed = spans.named("send create_user")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "QueueFull")
    assert failed.events == ()


async def test_headers_hold_the_producer_and_the_trace(spans: Spans, redis_url: str) -> None:
    async with Producer(redis_url, name="web") as producer:
        job = await producer.enqueue(DeleteUser(user_id=1))
    with redis.Redis.from_url(redis_url) as client:
        headers = json.loads(client.get(keys.job(job.job_id)))["h"]

    context = spans.one("send delete_user").context
    assert headers.keys() == {"producer", "traceparent"}
    assert headers["producer"].startswith("web:")
    assert headers["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


async def test_a_statement_that_is_cancelled_has_its_span(
    spans: Spans, engine: AsyncEngine, sql: Sql, eventually: Eventually
) -> None:
    tracing = Tracing(None, names=["create_user"], queue=keys.DEFAULT_QUEUE)
    sessions = tracing.sessions(engine)

    async def sleep() -> None:
        async with sessions() as session:
            await session.execute(text("SELECT pg_sleep(600), 'lovelace'"))

    with tracer().start_as_current_span("request"):
        sleeping = asyncio.create_task(sleep())
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        await eventually(lambda: sql(asleep))
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

    statement = spans.one("SELECT")
    assert attributes(statement)["db.query.text"] == "SELECT pg_sleep(?), ?"
    assert statement.status.description == "CancelledError"


async def test_statements_outside_of_a_span_have_no_spans(spans: Spans, settings: Settings) -> None:
    async with working(settings):
        pass
    with tracer().start_as_current_span("nothing else"):
        pass

    assert [span.name for span in spans.all()] == ["nothing else"]


async def test_a_scheduled_job_has_its_own_trace(spans: Spans, engine: AsyncEngine, logged: Logged) -> None:
    tracing = Tracing(None, names=[], queue=keys.DEFAULT_QUEUE)
    sessions = tracing.sessions(engine)

    async def purge(_tick_id: str) -> None:
        async with sessions() as session:
            await session.execute(text("DELETE FROM job_ledger WHERE job_id = 'lovelace'"))
            await session.commit()
        structlog.get_logger("handler").info("purged")
        logging.getLogger("library").info("purged")

    with logged() as lines, tracer().start_as_current_span("not its parent"):
        await tracing.ticks({"cron:purge": purge})["cron:purge"]("cron:purge:1")
        structlog.get_logger("handler").info("after it")

    process = spans.one("process cron:purge")
    assert process.parent is None
    assert spans.below(process) == ["DELETE job_ledger", "COMMIT"]
    assert [line.get("span_id") for line in lines()] == [f"{process.context.span_id:016x}"] * 2 + [None]


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, as it closes its pool
async def test_the_stock_arq_worker_traces_jobs_without_their_headers(
    spans: Spans, settings: Settings, redis_url: str
) -> None:
    async with Producer(redis_url) as producer:
        await producer.enqueue(user("lovelace"))
    worker = Worker(**app.stock_arguments(settings) | {"burst": True}, handle_signals=False)
    await worker.async_run()
    await worker.close()

    process = spans.one("process create_user")
    assert process.parent is None
    assert spans.below(process) == ["INSERT job_ledger", "INSERT users", "UPDATE job_ledger", "COMMIT"]
