"""The types of the messages' fields, and their validation."""

import re
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

# Lengths are in characters and are those of the tables' columns. The longest content, written entirely in JSON's \u
# escapes (12 bytes for a character beyond the first plane), still fits the default payload limit of 1 MiB.
EMAIL_LENGTH = 254
USERNAME_LENGTH = 64
PASSWORD_HASH_LENGTH = 255
TITLE_LENGTH = 200
CONTENT_LENGTH = 65_536
MAX_ID = 2**63 - 1

# The usual encoded forms: modular crypt and PHC strings (argon2, bcrypt, scrypt, pbkdf2), Django's and Werkzeug's.
# A salt is any printable ASCII except the separator, so it cannot hold NUL, which PostgreSQL does not store.
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

# Common addresses, which the e-mail library would accept unchanged, in more time than the rest of a job's validation
# takes. It checks all others. Possessive quantifiers (`++`) rule out backtracking: no part can begin within the last.
_COMMON_EMAIL = re.compile(
    r"[a-z0-9]++(?:[._+-][a-z0-9]++)*+@(?:[a-z0-9]++(?:-[a-z0-9]++)*+\.)++(?:com|org|net|edu|gov|io|dev|app|[a-z]{2})"
)
_COMMON_EMAIL_LENGTH = 64


def _text(value: str) -> str:
    # PostgreSQL does not store NUL in text. Refused here it is an answer, refused by the database it is an error.
    if "\x00" in value:
        raise PydanticCustomError("nul", "must not hold the NUL character")
    return value


def _email(value: str) -> str:
    if len(value) <= _COMMON_EMAIL_LENGTH and _COMMON_EMAIL.fullmatch(value) is not None:
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


# Examples and descriptions appear in the published contract and in the help of the command line.
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
        examples=["$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"],
    ),
    AfterValidator(_password_hash),
]
Title = Annotated[str, Field(min_length=1, max_length=TITLE_LENGTH, examples=["On engines"]), AfterValidator(_text)]
Content = Annotated[str, Field(max_length=CONTENT_LENGTH, examples=["They weave algebra."]), AfterValidator(_text)]
