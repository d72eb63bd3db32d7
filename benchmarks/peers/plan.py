"""Which jobs each scenario sends: the same ones, in the same order, to every system."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Job = tuple[str, dict[str, Any]]
"""A task's name and its arguments."""

SEED = 20
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43
POOL = 2000
"""Users and posts that are there from the start and get changed; others are there to be deleted."""
# Of ten jobs. Shuffled, so that every part of the load holds all kinds in this proportion.
PROPORTION = {
    "create_user": 3,
    "update_user": 2,
    "delete_user": 1,
    "create_post": 2,
    "update_post": 1,
    "delete_post": 1,
}
REFUSED_OF = 20
"""One in so many jobs of `refused` wants what the one before it has just got."""
_CYCLE = sum(PROPORTION.values())


def jobs(scenario: str, count: int) -> Iterator[Job]:
    """The jobs of a scenario: `noop`, `create_user`, `refused` or `mixed`."""
    match scenario:
        case "noop":
            return (("noop", {"number": number}) for number in range(count))
        case "create_user":
            return (create_user(f"job{number}") for number in range(count))
        case "refused":
            return map(_perhaps_refused, range(count))
        case "mixed":
            return _mixed(count)
        case _:
            raise SystemExit(f"there is no scenario {scenario!r}")


def create_user(name: str) -> Job:
    """A job that creates a user of this name, which must be lower-case letters and digits."""
    fields = {"email": f"{name}@example.com", "username": name, "hashed_password": HASH, "is_active": True}
    return "create_user", fields


def _perhaps_refused(number: int) -> Job:
    name, fields = create_user(f"job{number}")
    if number % REFUSED_OF == REFUSED_OF - 1:
        fields["email"] = f"job{number - 1}@example.com"
    return name, fields


def whole(count: int) -> int:
    """The next number of jobs that holds the proportion exactly.

    >>> whole(1), whole(10), whole(11)
    (10, 10, 20)
    """
    return -(-count // _CYCLE) * _CYCLE


def created(scenario: str, count: int) -> int:
    """How many users the jobs of a scenario create.

    >>> created("mixed", 100), created("refused", 100), created("create_user", 100)
    (30, 95, 100)
    """
    match scenario:
        case "mixed":
            return count * PROPORTION["create_user"] // _CYCLE
        case "refused":
            return count - count // REFUSED_OF
        case _:
            return count


@dataclass(frozen=True)
class State:
    """What the tables must hold after a mixed load."""

    users: int
    posts: int
    renamed: int
    retitled: int


def deleted(count: int) -> int:
    """How many users a mixed load deletes, each with one post; and how many other posts."""
    return count // _CYCLE


def after(count: int) -> State:
    """What the tables hold once all jobs of a mixed load were done once."""
    renamed = {fields["user_id"] for name, fields in _mixed(count) if name == "update_user"}
    retitled = {fields["post_id"] for name, fields in _mixed(count) if name == "update_post"}
    cycles = count // _CYCLE
    return State(
        users=POOL + cycles * PROPORTION["create_user"],
        posts=POOL + cycles * PROPORTION["create_post"],
        renamed=len(renamed),
        retitled=len(retitled),
    )


def _mixed(count: int) -> Iterator[Job]:
    rng = random.Random(SEED)  # noqa: S311  # repeatable on purpose
    cycle = [name for name, times in PROPORTION.items() for _ in range(times)]
    for start in range(0, count, _CYCLE):
        rng.shuffle(cycle)
        for offset, name in enumerate(cycle):
            yield name, _fields(name, start + offset, start // _CYCLE, rng)


def _fields(name: str, number: int, cycle: int, rng: random.Random) -> dict[str, Any]:
    someone, doomed = rng.randint(1, POOL), POOL + 1 + cycle
    match name:
        case "create_user":
            return create_user(f"job{number}")[1]
        case "update_user":
            return {"user_id": someone, "changes": {"username": f"renamed{number}"}}
        case "delete_user":
            return {"user_id": doomed}
        case "create_post":
            return {"author_id": someone, "title": f"Post number {number}", "content": "They weave algebra. " * 10}
        case "update_post":
            return {"post_id": someone, "changes": {"title": f"Retitled {number}"}}
        case _:
            return {"post_id": doomed}
