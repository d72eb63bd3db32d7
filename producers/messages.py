"""The messages that a worker accepts, and their replies: one model each.

These models are the contract. What they refuse never reaches Redis through a `Producer`, and is rejected as `invalid`
when another client sent it. No error text, `repr` or `str` made here holds the value of a field.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from producers.fields import Content, Email, Id, PasswordHash, Title, Username


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that are set. Only ids and booleans show their values; a repr ends up in logs."""
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            yield name, value if isinstance(value, _Model | bool) or name.endswith("id") else "…"


class Reply(_Model):
    """The answer of a done job."""

    # Replies are built from database rows and from JSON written by a worker.
    model_config = ConfigDict(from_attributes=True, strict=False, extra="forbid", frozen=True)


class User(Reply):
    """A user as replies show it: without the password hash."""

    id: int
    email: str
    username: str
    is_active: bool
    created_at: datetime


class Post(Reply):
    """A post as replies show it."""

    id: int
    title: str
    content: str
    author_id: int


class Deleted(Reply):
    """Whether there was anything to delete."""

    deleted: bool


ReplyT = TypeVar("ReplyT", bound=Reply)


class Message(_Model, Generic[ReplyT]):
    """The validated content of a job.

    A subclass names its job type and, as the type argument, its reply. That alone adds it to the contract, to
    `MESSAGES` and to the command line.
    """

    job: ClassVar[str]
    _reply: ClassVar[type[Reply]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "job" not in cls.__dict__:
            return
        for base in cls.__bases__:
            if issubclass(base, Message) and (args := base.__pydantic_generic_metadata__["args"]):
                (cls._reply,) = args
        MESSAGES[cls.job] = cls

    @classmethod
    def reply_type(cls) -> type[ReplyT]:
        """The model of the reply."""
        return cast("type[ReplyT]", cls._reply)

    @property
    def ordering_key(self) -> str | None:
        """The default ordering key: jobs with one key run one at a time, in order. None: in any order."""
        return None


MESSAGES: dict[str, type[Message[Any]]] = {}
"""Every message, by the name of its job type."""


class CreateUser(Message[User]):
    """Create a user. Rejected as `conflict` if the username or address is taken."""

    job: ClassVar[str] = "create_user"

    email: Email
    username: Username
    hashed_password: PasswordHash
    is_active: bool = True


class _Changes(_Model):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _something_to_change(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("no_changes", "must name at least one field to change")
        for name in self.model_fields_set:
            if getattr(self, name) is None:
                # Null would be a request to clear the field, and no column here can be null.
                raise PydanticCustomError("null_change", "must not be null: leave a field out to keep it")
        return self


class UserChanges(_Changes):
    """The fields of a user to set; those left out stay as they are."""

    email: Email | None = None
    username: Username | None = None
    hashed_password: PasswordHash | None = None
    is_active: bool | None = None


class UpdateUser(Message[User]):
    """Change some fields of a user. Rejected as `not_found`, or as `conflict` if the username or address is taken."""

    job: ClassVar[str] = "update_user"

    user_id: Id
    changes: UserChanges

    @property
    def ordering_key(self) -> str | None:
        return f"user:{self.user_id}"


class DeleteUser(Message[Deleted]):
    """Delete a user and that user's posts. A missing user is an answer (`deleted` is false), not an error."""

    job: ClassVar[str] = "delete_user"

    user_id: Id

    @property
    def ordering_key(self) -> str | None:
        return f"user:{self.user_id}"


class CreatePost(Message[Post]):
    """Create a post. Rejected as `not_found` when the author does not exist."""

    job: ClassVar[str] = "create_post"

    author_id: Id
    title: Title
    content: Content


class PostChanges(_Changes):
    """The fields of a post to set; those left out stay as they are."""

    title: Title | None = None
    content: Content | None = None


class UpdatePost(Message[Post]):
    """Change some fields of a post. Rejected as `not_found` when there is no such post."""

    job: ClassVar[str] = "update_post"

    post_id: Id
    changes: PostChanges

    @property
    def ordering_key(self) -> str | None:
        return f"post:{self.post_id}"


class DeletePost(Message[Deleted]):
    """Delete a post. A missing post is an answer (`deleted` is false), not an error."""

    job: ClassVar[str] = "delete_post"

    post_id: Id

    @property
    def ordering_key(self) -> str | None:
        return f"post:{self.post_id}"


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def problems(error: ValidationError) -> tuple[str, ...]:
    """What is wrong with a message: one line per problem, without any of its values.

    >>> try:
    ...     DeleteUser.model_validate({"user_id": "seven", "force": True})
    ... except ValidationError as error:
    ...     problems(error)
    ('user_id: input should be a valid integer', 'force: extra inputs are not permitted')
    """
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:20]:
        # The sender chose the name of an unknown field: unless it has the form of a name, it may be a value.
        parts = [part if isinstance(part, int) or _NAME.fullmatch(part) else "…" for part in problem["loc"]]
        text = problem["msg"][:1].lower() + problem["msg"][1:]
        lines.append(f"{'.'.join(map(str, parts))}: {text}" if parts else text)
    return tuple(lines)
