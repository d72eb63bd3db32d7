"""Enqueueing the records of a file in order, in bounded memory."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producers import ids, wire
from producers._encoding import MAX_DELAY_SECONDS, Encoded, Request
from producers._sender import BYTES_PER_CALL, JOBS_PER_CALL, Sender
from producers.cli.records import BadLine, Record
from producers.errors import EnqueueError, EnqueueUnconfirmed, RedisRefused, RedisUnavailable
from producers.messages import MESSAGES, problems

MAX_LINES = 10**12


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    idempotency_key: str | None = None
    ordering_key: str | None = None
    defer_by: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] | None = None


@dataclass(frozen=True, slots=True)
class Naming:
    """The idempotency keys of the jobs of a file: `<prefix>-<line>`, so that the load can be repeated.

    With a given prefix, Redis remembers the content of each key and refuses other content. A generated prefix only
    serves to continue the load and costs Redis nothing.
    """

    prefix: str
    given: bool

    @classmethod
    def of(cls, prefix: str | None) -> "Naming":
        """Use the given prefix, or generate one.

        Raises:
            ValueError: the prefix cannot begin an idempotency key.
        """
        if prefix is None:
            return cls(ids.new_id(), given=False)
        ids.job_id(f"{prefix}-{MAX_LINES}", None)
        return cls(prefix, given=True)

    def of_line(self, line: int) -> str:
        """The idempotency key of the job in a line."""
        return f"{self.prefix}-{line}"


class Stopped(Exception):
    """The load cannot continue: Redis does not answer or takes no writes. The cause is the producer's error."""


def _no_progress() -> None:
    return


class Load:
    """One load of one file.

    Attributes:
        lines: the number of records and bad lines read.
        valid: of these, the jobs that are valid.
        accepted: the jobs that were newly accepted.
        known: the jobs that had been accepted before.
        refused: the lines that are bad or were refused.
        next_line: the first line that may be missing from the queue.
    """

    def __init__(self, *, naming: Naming, refuse: Callable[[BadLine], None]) -> None:
        self.lines = self.valid = self.accepted = self.known = self.refused = 0
        self.next_line = 1
        self._naming = naming
        self._sender: Sender | None = None
        self._refuse = refuse
        self._progress: Callable[[], None] = _no_progress
        self._headers = wire.headers_json({"producer": socket.gethostname()})
        self._jobs: list[tuple[int, Encoded]] = []
        self._bytes = 0

    async def run(
        self,
        records: Iterable[Record | BadLine],
        *,
        sender: Sender | None,
        progress: Callable[[], None] | None = None,
    ) -> None:
        """Send all valid jobs; without a sender, only validate all records.

        Args:
            records: the lines of the file.
            sender: sends the jobs.
            progress: called every few hundred lines.

        Raises:
            Stopped: the load cannot continue; `next_line` is where to resume.
        """
        self._sender = sender
        self._progress = progress or _no_progress
        for record in records:
            self.lines += 1
            job = self._encode(record) if isinstance(record, Record) else record
            if isinstance(job, BadLine):
                self._bad(job)
            else:
                self.valid += 1
                if self._bytes + len(job.payload) > BYTES_PER_CALL:
                    await self._send()
                self._jobs.append((record.line, job))
                self._bytes += len(job.payload)
            if len(self._jobs) == JOBS_PER_CALL or self.lines % JOBS_PER_CALL == 0:
                await self._send()
        await self._send()

    def _encode(self, record: Record) -> Encoded | BadLine:
        try:
            message = MESSAGES[record.job].model_validate(record.fields)
            options = _Options.model_validate(record.options)
            own = options.idempotency_key
            encoded = Request(
                message,
                idempotency_key=self._naming.of_line(record.line) if own is None else own,
                ordering_key=options.ordering_key,
                defer_by=options.defer_by,
            ).encode(self._headers)
        except ValidationError as error:
            return BadLine(record.line, problems(error))
        except ValueError as error:
            return BadLine(record.line, (str(error),))
        remembered = own is not None or self._naming.given
        return encoded if remembered else encoded._replace(idempotency_key=None, digest="")

    async def _send(self) -> None:
        jobs, self._jobs, self._bytes = self._jobs, [], 0
        self._progress()
        await _raise_swallowed_cancel()
        if self._sender is None or not jobs:
            return
        self.next_line = jobs[0][0]
        answers = await self._sender.send([job for _, job in jobs])
        for (line, _), answer in zip(jobs, answers, strict=True):
            match answer:
                case True:
                    self.accepted += 1
                case False:
                    self.known += 1
                case RedisUnavailable() | EnqueueUnconfirmed() | RedisRefused():
                    raise Stopped from answer
                case EnqueueError():
                    self._bad(BadLine(line, (str(answer),)))
        self.next_line = jobs[-1][0] + 1

    def _bad(self, line: BadLine) -> None:
        self.refused += 1
        self._refuse(line)


async def _raise_swallowed_cancel() -> None:
    await asyncio.sleep(0)
    # In Python 3.11 and older, `wait_for`, which redis-py uses to send, may swallow a cancellation.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
