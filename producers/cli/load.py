"""Getting the records of a file accepted, in order and in bounded memory."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producers import ids, wire
from producers._encoding import MAX_DELAY_SECONDS, Encoded, Request
from producers._sender import BYTES_A_CALL, JOBS_A_CALL, Sender
from producers.cli.records import BadLine, Record
from producers.errors import EnqueueError, EnqueueUnconfirmed, RedisRefused, RedisUnavailable
from producers.messages import MESSAGES, problems

MOST_LINES = 10**12


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    idempotency_key: str | None = None
    ordering_key: str | None = None
    defer_by: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] | None = None


@dataclass(frozen=True, slots=True)
class Naming:
    """How the jobs of a load are named, so that it can be repeated: `<prefix>-<line>`.

    With a prefix that was given, Redis remembers what each name stands for, and refuses another content. One that was
    made up for this load serves only to go on with it, and costs Redis nothing.
    """

    prefix: str
    given: bool

    @classmethod
    def of(cls, prefix: str | None) -> "Naming":
        """Take the prefix that was given, or make one up.

        Raises:
            ValueError: for one that cannot begin an idempotency key.
        """
        if prefix is None:
            return cls(ids.new_id(), given=False)
        ids.job_id(f"{prefix}-{MOST_LINES}", None)
        return cls(prefix, given=True)

    def of_line(self, line: int) -> str:
        """The idempotency key of the job of a line."""
        return f"{self.prefix}-{line}"


class Stopped(Exception):
    """The load cannot go on: Redis is away, or takes no writes. The cause is the producer's error."""


class Load:
    """One load of one file.

    Attributes:
        lines: how many records and bad lines were read.
        valid, accepted, known, refused: of these, how many are a job's; were newly accepted; had been accepted
            before; are neither.
        next_line: the first line that is not surely in the queue.
    """

    def __init__(
        self,
        *,
        naming: Naming,
        refuse: Callable[[BadLine], None],
        progress: Callable[[], None],
    ) -> None:
        """`progress` is called every few hundred lines."""
        self.lines = self.valid = self.accepted = self.known = self.refused = 0
        self.next_line = 1
        self._naming = naming
        self._sender: Sender | None = None
        self._refuse = refuse
        self._progress = progress
        self._headers = wire.headers_json({"producer": socket.gethostname()})
        self._jobs: list[tuple[int, Encoded]] = []
        self._bytes = 0

    async def run(self, records: Iterable[Record | BadLine], *, sender: Sender | None) -> None:
        """Send all the records that are jobs; without a sender, check them all.

        Raises:
            Stopped: when it cannot go on; the attributes say how far it came.
        """
        self._sender = sender
        for record in records:
            self.lines += 1
            job = self._encode(record) if isinstance(record, Record) else record
            if isinstance(job, BadLine):
                self._bad(job)
            else:
                self.valid += 1
                if self._bytes + len(job.payload) > BYTES_A_CALL:
                    await self._send()
                self._jobs.append((record.line, job))
                self._bytes += len(job.payload)
            if len(self._jobs) == JOBS_A_CALL or self.lines % JOBS_A_CALL == 0:
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
        await _let_interrupts_through()
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


async def _let_interrupts_through() -> None:
    await asyncio.sleep(0)
    # Up to Python 3.11 `wait_for`, which redis-py sends with, may take a cancel and keep it to itself.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
