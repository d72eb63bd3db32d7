"""The jobs of each workload: the same jobs, in the same order, for every system."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Job = tuple[str, dict[str, Any]]
"""A job's name and its fields."""

SEED = 20
PASSWORD_HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43
POOL_SIZE = 2000
"""How many users, and posts of theirs, exist from the start and are updated. Others exist to be deleted."""
PROPORTIONS = {
    "create_user": 3,
    "update_user": 2,
    "delete_user": 1,
    "create_post": 2,
    "update_post": 1,
    "delete_post": 1,
}
"""The jobs of one cycle of `mixed`, which are shuffled. Every part of the load has these proportions."""
_CYCLE = sum(PROPORTIONS.values())


@dataclass(frozen=True)
class TableState:
    """What the tables hold."""

    users: int
    posts: int = 0
    renamed: int = 0
    retitled: int = 0


def jobs(workload: str, count: int) -> Iterator[Job]:
    """The jobs of a workload: `noop`, `create_user` or `mixed`."""
    match workload:
        case "noop":
            return (("noop", {"number": number}) for number in range(count))
        case "create_user":
            return (create_user(f"job{number}") for number in range(count))
        case "mixed":
            return _mixed(count)
        case _:
            raise SystemExit(f"unknown workload {workload!r}")


def create_user(name: str) -> Job:
    """A job that creates a user of this name, which must be lower-case letters and digits."""
    fields = {"email": f"{name}@example.com", "username": name, "hashed_password": PASSWORD_HASH, "is_active": True}
    return "create_user", fields


def whole_cycles(count: int) -> int:
    """The number of jobs, rounded up to whole cycles.

    >>> whole_cycles(1), whole_cycles(10), whole_cycles(11)
    (10, 10, 20)
    """
    return -(-count // _CYCLE) * _CYCLE


def created_users(workload: str, count: int) -> int:
    """How many users the jobs of a workload create."""
    return count * PROPORTIONS["create_user"] // _CYCLE if workload == "mixed" else count


def deleted_users(count: int) -> int:
    """How many users a mixed workload deletes, each with one post. It deletes as many other posts."""
    return count // _CYCLE


def final_state(workload: str, count: int) -> TableState:
    """What the tables hold after every job has run once."""
    if workload != "mixed":
        return TableState(count)
    updated = [(name, fields) for name, fields in _mixed(count) if name.startswith("update")]
    return TableState(
        users=POOL_SIZE + created_users(workload, count),
        posts=POOL_SIZE + count // _CYCLE * PROPORTIONS["create_post"],
        renamed=len({fields["user_id"] for name, fields in updated if name == "update_user"}),
        retitled=len({fields["post_id"] for name, fields in updated if name == "update_post"}),
    )


def _mixed(count: int) -> Iterator[Job]:
    rng = random.Random(SEED)  # noqa: S311  # repeatable on purpose
    cycle = [name for name, times in PROPORTIONS.items() for _ in range(times)]
    for start in range(0, count, _CYCLE):
        rng.shuffle(cycle)
        for offset, name in enumerate(cycle):
            yield name, _fields(name, start + offset, start // _CYCLE, rng)


def _fields(name: str, number: int, cycle: int, rng: random.Random) -> dict[str, Any]:
    kept_id, deleted_id = rng.randint(1, POOL_SIZE), POOL_SIZE + 1 + cycle
    match name:
        case "create_user":
            return create_user(f"job{number}")[1]
        case "update_user":
            return {"user_id": kept_id, "changes": {"username": f"renamed{number}"}}
        case "delete_user":
            return {"user_id": deleted_id}
        case "create_post":
            return {"author_id": kept_id, "title": f"Post number {number}", "content": "They weave algebra. " * 10}
        case "update_post":
            return {"post_id": kept_id, "changes": {"title": f"Retitled {number}"}}
        case _:
            return {"post_id": deleted_id}
