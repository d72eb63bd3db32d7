"""What may be asked of the worker: one model per message, one per reply.

The models are the contract. What they refuse never reaches Redis through a `Producer`, and is answered
`invalid` when another client wrote it. No error text, `repr` or `str` made here holds a field's value.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, cast

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

# Sizes are counted in characters and are those of the tables' columns. The longest content, written wholly in
# JSON's \\u escapes (12 bytes for a character beyond the first plane), still fits the default payload limit of 1 MiB.
EMAIL_LENGTH = 254
USERNAME_LENGTH = 64
PASSWORD_HASH_LENGTH = 255
TITLE_LENGTH = 200
CONTENT_LENGTH = 65_536
MAX_ID = 2**63 - 1

# The usual encoded forms: modular crypt and PHC strings (argon2, bcrypt, scrypt, pbkdf2), Django's and Werkzeug's.
# A salt is any printable ASCII but the separator: what PostgreSQL cannot hold, such as NUL, cannot get in through it.
_PASSWORD_HASH = re.compile(
    r"""
      (argon2)?\$argon2(id|i|d)\$(v=\d+\$)?m=\d+,t=\d+,p=\d+(,[a-z]+=[A-Za-z0-9+/]+)*\$[A-Za-z0-9+/]{8,}\$[A-Za-z0-9+/]{16,}
    | (bcrypt\$|bcrypt_sha256\$)?\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}
    | \$bcrypt-sha256\$(v=2,t=2b,r=\d+|2[ab],\d+)\$[./A-Za-z0-9]{22}\$[./A-Za-z0-9]{31}
    | \$scrypt\$ln=\d+,r=\d+,p=\d+\$[A-Za-z0-9./+]+\$[A-Za-z0-9./+]{16,}
    | \$7\$[./A-Za-z0-9]{11,}\$[./A-Za-z0-9]{43}
    | scrypt:\d+:\d+:\d+\$[!-#%-~]+\$[0-9a-f]{64,}
    | scrypt\$\d+\$[!-#%-~]+\$\d+\$\d+\$[A-Za-z0-9+/=]{16,}
    | \$pbkdf2(-sha\d+)?\$(i=)?\d+(,l=\d+)?\$[A-Za-z0-9./+]+\$[A-Za-z0-9./+]{16,}
    | pbkdf2_sha\d+\$\d+\$[!-#%-~]+\$[A-Za-z0-9+/=]{16,}
    | pbkdf2:sha\d+(:\d+)?\$[!-#%-~]+\$[0-9a-f]{40,}
    """,
    re.VERBOSE | re.ASCII,
)


def _text(value: str) -> str:
    # PostgreSQL cannot hold NUL in text: said here, it is an answer; said by the database, it is an error.
    if "\x00" in value:
        raise PydanticCustomError("nul", "must not hold the NUL character")
    return value


# Addresses of the plainest kind, which the library takes as they are. It reads all others; these, nearly all there
# are, would otherwise spend more time in it than in all the rest of their job's validation. No part can begin within
# the one before it, so none is ever read again (`++`).
_PLAIN_EMAIL = re.compile(
    r"[a-z0-9]++(?:[._+-][a-z0-9]++)*+@(?:[a-z0-9]++(?:-[a-z0-9]++)*+\.)++(?:com|org|net|edu|gov|io|dev|app|[a-z]{2})"
)
_PLAIN_EMAIL_LENGTH = 64


def _email(value: str) -> str:
    if len(value) <= _PLAIN_EMAIL_LENGTH and _PLAIN_EMAIL.fullmatch(value) is not None:
        return value
    try:
        return validate_email(value, check_deliverability=False).normalized
    except EmailNotValidError:
        # The library's own text quotes parts of the address.
        raise PydanticCustomError("email", "must be a valid e-mail address") from None


def _password_hash(value: str) -> str:
    if _PASSWORD_HASH.fullmatch(value) is None:
        raise PydanticCustomError(
            "password_hash",
            "must be an encoded argon2, bcrypt, scrypt or pbkdf2 hash, never a plain password",
        )
    return value


# The examples and descriptions are for the published contract and the help of the command line.
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[42])]
Email = Annotated[
    str,
    Field(max_length=EMAIL_LENGTH, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(_email),
]
Username = Annotated[str, Field(min_length=1, max_length=USERNAME_LENGTH, examples=["ada"]), AfterValidator(_text)]
PasswordHash = Annotated[
    str,
    Field(
        max_length=PASSWORD_HASH_LENGTH,
        description="An encoded argon2, bcrypt, scrypt or pbkdf2 hash, never a plain password.",
        examples=[
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt",
        ],
    ),
    AfterValidator(_password_hash),
]
Title = Annotated[str, Field(min_length=1, max_length=TITLE_LENGTH, examples=["On engines"]), AfterValidator(_text)]
Content = Annotated[str, Field(max_length=CONTENT_LENGTH, examples=["They weave algebra."]), AfterValidator(_text)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Name the fields that are set, never their values: a repr ends in logs and tracebacks."""
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            yield name, value if isinstance(value, _Model | bool) or name.endswith("id") else "…"


class Reply(_Model):
    """What a done job answers."""

    # Replies are built from rows of the database and from JSON that a worker wrote.
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
    """Whether there was something to delete."""

    deleted: bool


ReplyT = TypeVar("ReplyT", bound=Reply)


class Message(_Model, Generic[ReplyT]):
    """The validated content of a job.

    A subclass gives the name of its job and, as the type argument, its reply; that alone makes it a part of the
    contract, of `MESSAGES` and of the command line.
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
        """The model of what the done job answers."""
        return cast("type[ReplyT]", cls._reply)

    @property
    def ordering_key(self) -> str | None:
        """The key that this job runs in order with, unless the producer names another. None: any order will do."""
        return None


MESSAGES: dict[str, type[Message[Any]]] = {}
"""Every message, by the name of its job."""


class CreateUser(Message[User]):
    """Create a user. Rejected as `conflict` when the e-mail address or the username is taken."""

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
                # Left out and null are different wishes, and no column here can be null.
                raise PydanticCustomError("null_change", "must not be null: leave a field out to keep it")
        return self


class UserChanges(_Changes):
    """The fields of a user to set; those left out stay as they are."""

    email: Email | None = None
    username: Username | None = None
    hashed_password: PasswordHash | None = None
    is_active: bool | None = None


class UpdateUser(Message[User]):
    """Change some fields of a user. Rejected as `not_found`, or as `conflict` when a new name is taken."""

    job: ClassVar[str] = "update_user"

    user_id: Id
    changes: UserChanges

    @property
    def ordering_key(self) -> str | None:
        return f"user:{self.user_id}"


class DeleteUser(Message[Deleted]):
    """Delete a user together with that user's posts. A user who is not there is an answer, not an error."""

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
    """Delete a post. A post that is not there is an answer, not an error."""

    job: ClassVar[str] = "delete_post"

    post_id: Id

    @property
    def ordering_key(self) -> str | None:
        return f"post:{self.post_id}"


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def problems(error: ValidationError) -> tuple[str, ...]:
    """Say what is wrong with a message, one line a problem, without any value of it.

    >>> try:
    ...     DeleteUser.model_validate({"user_id": "seven", "force": True})
    ... except ValidationError as error:
    ...     problems(error)
    ('user_id: input should be a valid integer', 'force: extra inputs are not permitted')
    """
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:20]:
        # The name of a refused field is the sender's: told when it could be a name, for otherwise it may be a value.
        parts = [part if isinstance(part, int) or _NAME.fullmatch(part) else "…" for part in problem["loc"]]
        text = problem["msg"][:1].lower() + problem["msg"][1:]
        lines.append(f"{'.'.join(map(str, parts))}: {text}" if parts else text)
    return tuple(lines)
