"""What the contract accepts and refuses, and that no text of it holds a value."""

import hashlib
import json
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from producers import CreatePost, CreateUser, Deleted, DeleteUser, InvalidMessage, Post, UpdatePost, UpdateUser, User
from producers._encoding import build
from producers.fields import (
    CONTENT_LENGTH,
    EMAIL_LENGTH,
    MAX_ID,
    PASSWORD_HASH_LENGTH,
    TITLE_LENGTH,
    USERNAME_LENGTH,
)
from producers.messages import MESSAGES, DeletePost, Message, problems
from producers.wire import fields_json

BCRYPT = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
ARGON2_TAIL = "m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"
SCRYPT_HEX = hashlib.scrypt(b"p", salt=b"s", n=16, r=8, p=1).hex()
PBKDF2_HEX = hashlib.pbkdf2_hmac("sha256", b"p", b"s", 1).hex()

HASHES = {
    "argon2id": f"$argon2id$v=19${ARGON2_TAIL}",
    "argon2i": f"$argon2i$v=19${ARGON2_TAIL}",
    "argon2d": f"$argon2d$v=19${ARGON2_TAIL}",
    "argon2, older": "$argon2i$m=512,t=2,p=2$aI2R0hpDyLm3ltLa+1/rvQ$LqPKjd6n8yniKtAithoR7A",
    "argon2 with data": "$argon2id$v=19$m=4096,t=3,p=1,keyid=Hj5+dsK0,data=sRlHhRmKUGzdOmXn01XmXygd5Kc"
    "$4fXXG0spB92WPB1NitT8/OH0VKI$iPBVuORECm5biUsjq33hn9/7BKqy9aPWKhFfK2haEsM",
    "argon2, Django": f"argon2$argon2id$v=19${ARGON2_TAIL}",
    "bcrypt 2a": BCRYPT.replace("$2b$", "$2a$"),
    "bcrypt 2b": BCRYPT,
    "bcrypt 2x": BCRYPT.replace("$2b$", "$2x$"),
    "bcrypt 2y": BCRYPT.replace("$2b$", "$2y$"),
    "bcrypt, Django": f"bcrypt${BCRYPT}",
    "bcrypt_sha256, Django": f"bcrypt_sha256${BCRYPT}",
    "bcrypt-sha256, passlib": "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2",
    "bcrypt-sha256, older passlib": "$bcrypt-sha256$2a,12$LrmaIX5x4TRtAwEfwJZa1.$2ehnw6LvuIUTM0iz4iz9hTxv21B6KFO",
    "scrypt, passlib": "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "scrypt, libsodium": "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
    "scrypt, Werkzeug": f"scrypt:32768:8:1$kD2nLr9pZbQ0xYvH${SCRYPT_HEX}",
    "scrypt, Django": "scrypt$16384$MNNqwz8Ewtlr$8$5$rGYq7vE9oYl5Iwh8dvDPnmp7nzsfXCqHVcdPdMyTjkgYnQ9XbGfA2W0tGg==",
    "pbkdf2, passlib": "$pbkdf2-sha256$29000$N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
    "pbkdf2 sha1, passlib": "$pbkdf2$131000$r5WythYixPgfI0RIqZUyBg$6O4MMYnMjiGrFZUhFrCF2mw2GJ4",
    "pbkdf2, PHC": "$pbkdf2-sha512$i=210000,l=32$saltsaltsaltsalt$Vq1c9jvn9P3o0m7rIXv4eM3ZJ6G0gqJx1hS9VqXk6xY",
    "pbkdf2, Django": "pbkdf2_sha256$870000$k7Zr1mOqVdX4y9$K1u5bWq1v2k5zv2mXQb8a2dT1b0r3VwYf6x0l2d8n7E=",
    "pbkdf2 sha1, Django": "pbkdf2_sha1$260000$seasalt2$wAibXvW6jgvatCdONi6SMJ6q7mI=",
    "pbkdf2, Werkzeug": f"pbkdf2:sha256:1000000$H6sTzPq0uWvX1yBd${PBKDF2_HEX}",
}

PLAIN = {
    "a word": "hunter2",
    "a passphrase": "correct horse battery staple",
    "empty": "",
    "with the sign": "$ecret$",
    "long": "x" * 80,
    "in another script": "пароль-密码",
    "a digest of another scheme": hashlib.sha256(b"p").hexdigest(),
    "base64": "cGxhaW4gcGFzc3dvcmQgaW4gYmFzZTY0IGlzIHBsYWlu",
    "md5-crypt": "$1$etNnh7FA$OlM7eljE/B7F1J4XYNnk81",
    "sha512-crypt": "$6$rounds=5000$saltsalt$" + "a" * 86,
    "a name of a scheme": "argon2id",
    "as of scrypt": "scrypt$my$correcthorsebatterystaple",
    "as of Werkzeug": "pbkdf2:sha256$salt$correct-horse-battery-staple-correct-horse",
    "as of bcrypt": "$2b$12$tooshort",
    "two lines": BCRYPT + "\n",
    "a space before": " " + BCRYPT,
    "NUL in the salt": "pbkdf2_sha256$1$sa\x00lt$K1u5bWq1v2k5zv2mXQb8a2dT1b0r3VwYf6x0l2d8n7E=",
    "digits of another script": BCRYPT.replace("$12$", "$١٢$"),
}

SECRET = "s3cret-value"
VALID_USER = {"email": "ada@example.com", "username": "ada", "hashed_password": BCRYPT}


def refused(message: type[Message[Any]], fields: dict[str, Any]) -> tuple[str, ...]:
    """The problems of fields that must be refused."""
    with pytest.raises(InvalidMessage) as caught:
        build(message, fields)
    return caught.value.problems


@pytest.mark.parametrize("encoded", HASHES.values(), ids=HASHES)
def test_an_encoded_hash_is_accepted(encoded: str) -> None:
    assert CreateUser(email="ada@example.com", username="ada", hashed_password=encoded).hashed_password == encoded


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_anything_but_an_encoded_hash_is_refused(text: str) -> None:
    found = refused(CreateUser, VALID_USER | {"hashed_password": text})

    assert found == (
        "hashed_password: must be an encoded argon2, bcrypt, scrypt or pbkdf2 hash, never a plain password",
    )


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (CreateUser, VALID_USER | {"email": "a" * 64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 57 + ".com"}),
        (CreateUser, VALID_USER | {"username": "u" * USERNAME_LENGTH}),
        (CreateUser, VALID_USER | {"username": "🐍" * USERNAME_LENGTH}),
        (CreatePost, {"author_id": MAX_ID, "title": "t" * TITLE_LENGTH, "content": "c" * CONTENT_LENGTH}),
        (CreatePost, {"author_id": 1, "title": "t", "content": ""}),
        (DeleteUser, {"user_id": 1}),
        (DeletePost, {"post_id": MAX_ID}),
    ],
)
def test_a_value_at_the_limit_is_accepted(message: type[Message[Any]], fields: dict[str, Any]) -> None:
    build(message, fields)


@pytest.mark.parametrize(
    ("message", "fields", "field"),
    [
        (CreateUser, VALID_USER | {"email": "a@" + "b" * 63 + ".com" * EMAIL_LENGTH}, "email"),
        (CreateUser, VALID_USER | {"username": "u" * (USERNAME_LENGTH + 1)}, "username"),
        (CreateUser, VALID_USER | {"username": ""}, "username"),
        (CreateUser, VALID_USER | {"hashed_password": BCRYPT * PASSWORD_HASH_LENGTH}, "hashed_password"),
        (CreatePost, {"author_id": 1, "title": "t" * (TITLE_LENGTH + 1), "content": ""}, "title"),
        (CreatePost, {"author_id": 1, "title": "", "content": ""}, "title"),
        (CreatePost, {"author_id": 1, "title": "t", "content": "c" * (CONTENT_LENGTH + 1)}, "content"),
        (DeleteUser, {"user_id": 0}, "user_id"),
        (DeleteUser, {"user_id": -1}, "user_id"),
        (DeleteUser, {"user_id": MAX_ID + 1}, "user_id"),
        (UpdatePost, {"post_id": 1, "changes": {"title": "t" * (TITLE_LENGTH + 1)}}, "changes.title"),
    ],
)
def test_a_value_beyond_the_limit_is_refused(message: type[Message[Any]], fields: dict[str, Any], field: str) -> None:
    (problem,) = refused(message, fields)

    assert problem.startswith(f"{field}: ")


@pytest.mark.parametrize("value", [True, "1", 1.0, 1.5, b"1", [1], {}])
def test_only_an_integer_is_accepted_as_an_id(value: object) -> None:
    assert refused(DeleteUser, {"user_id": value}) == ("user_id: input should be a valid integer",)


@pytest.mark.parametrize("value", [1, 0, "true", "no"])
def test_only_a_boolean_is_accepted_as_a_boolean(value: object) -> None:
    assert refused(CreateUser, VALID_USER | {"is_active": value}) == ("is_active: input should be a valid boolean",)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (CreateUser, VALID_USER | {"username": "a\x00b"}),
        (CreateUser, VALID_USER | {"email": "a\x00b@example.com"}),
        (CreatePost, {"author_id": 1, "title": "\x00", "content": "c"}),
        (CreatePost, {"author_id": 1, "title": "t", "content": "c\x00"}),
        (UpdatePost, {"post_id": 1, "changes": {"content": "\x00"}}),
    ],
)
def test_nul_is_refused(message: type[Message[Any]], fields: dict[str, Any]) -> None:
    assert len(refused(message, fields)) == 1


def test_half_a_surrogate_pair_is_refused() -> None:
    assert refused(CreatePost, {"author_id": 1, "title": "\ud83d", "content": "c"})[0].startswith("title: ")


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "a@b@c.example"]
)
def test_an_invalid_address_is_refused(email: str) -> None:
    assert refused(CreateUser, VALID_USER | {"email": email}) == ("email: must be a valid e-mail address",)


def test_an_address_is_normalized_once() -> None:
    once = CreateUser(email="Ada@EXAMPLE.com", username="ada", hashed_password=BCRYPT)

    assert once.email == "Ada@example.com"
    assert CreateUser.model_validate_json(fields_json(once)) == once


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"changes": {}}, "changes: must name at least one field to change"),
        ({"changes": {"email": None}}, "changes: must not be null: leave a field out to keep it"),
        ({"changes": {"email": None, "username": "ada"}}, "changes: must not be null: leave a field out to keep it"),
        ({"changes": {"user_id": 2}}, "changes.user_id: extra inputs are not permitted"),
        ({}, "changes: field required"),
    ],
)
def test_changes_without_a_change_are_refused(fields: dict[str, Any], problem: str) -> None:
    assert refused(UpdateUser, {"user_id": 1, **fields}) == (problem,)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_unknown_fields_are_refused(message: type[Message[Any]]) -> None:
    assert "surprise: extra inputs are not permitted" in refused(message, {"surprise": 1})


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (CreateUser(email="ada@example.com", username="ada", hashed_password=BCRYPT), None),
        (UpdateUser.model_validate({"user_id": 42, "changes": {"is_active": False}}), "user:42"),
        (DeleteUser(user_id=42), "user:42"),
        (CreatePost(author_id=42, title="t", content="c"), None),
        (UpdatePost.model_validate({"post_id": 7, "changes": {"title": "t"}}), "post:7"),
        (DeletePost(post_id=7), "post:7"),
    ],
    ids=lambda value: value.job if isinstance(value, Message) else "",
)
def test_jobs_of_the_same_row_share_an_ordering_key(message: Message[Any], key: str | None) -> None:
    assert message.ordering_key == key


def test_a_message_has_its_reply_type() -> None:
    replies = {
        job: message.reply_type() for job, message in MESSAGES.items() if message.__module__.startswith("producers")
    }

    assert replies == {
        "create_user": User,
        "update_user": User,
        "delete_user": Deleted,
        "create_post": Post,
        "update_post": Post,
        "delete_post": Deleted,
    }


def test_the_reply_for_a_user_has_no_hash() -> None:
    row = {"id": 1, "email": "a@example.com", "username": "a", "is_active": True, "created_at": datetime.now(UTC)}

    assert "hashed_password" not in User.model_fields
    with pytest.raises(ValidationError):
        User.model_validate(row | {"hashed_password": BCRYPT})


@pytest.mark.parametrize(
    "model",
    [
        CreateUser(email="s3cret-value@example.com", username=SECRET, hashed_password=HASHES["argon2id"]),
        UpdateUser.model_validate({"user_id": 1, "changes": {"username": SECRET, "hashed_password": BCRYPT}}),
        CreatePost(author_id=1, title=SECRET, content=SECRET),
        Post(id=1, title=SECRET, content=SECRET, author_id=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_no_text_of_a_model_holds_a_value(model: BaseModel) -> None:
    for text in (repr(model), str(model), f"{model}", "{!r:>200}".format(model)):  # noqa: UP032  # each way of formatting is a case
        assert SECRET not in text
        assert "$" not in text
        assert "id=1" in text or "email=" in text


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (CreateUser, {"email": SECRET, "username": SECRET * 10, "hashed_password": SECRET, "is_active": SECRET}),
        (UpdateUser, {"user_id": SECRET, "changes": {"email": SECRET}}),
        (UpdateUser, {"user_id": 1, "changes": SECRET}),
        (CreatePost, {"author_id": SECRET, "title": f"{SECRET}\x00", "content": [SECRET]}),
        (DeletePost, {"post_id": 1, "surprise": SECRET}),
    ],
)
def test_no_text_of_an_error_holds_a_value(message: type[Message[Any]], fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage) as caught:
        build(message, fields)
    with pytest.raises(ValidationError) as raw:
        message.model_validate(fields)
    with pytest.raises(ValidationError) as of_json:
        message.model_validate_json(json.dumps(fields))

    texts = [str(caught.value), repr(caught.value), *caught.value.problems, *traceback.format_exception(caught.value)]
    texts += [str(raw.value), repr(raw.value), str(of_json.value), repr(of_json.value)]
    assert not [text for text in texts if SECRET in text]


@given(st.text(), st.integers())
def test_the_name_of_an_unknown_field_is_short_and_printable(name: str, value: int) -> None:
    with pytest.raises(ValidationError) as caught:
        DeleteUser.model_validate({name: value})

    for line in problems(caught.value):
        assert line.isprintable()
        assert len(line) < 600


def test_only_the_first_problems_are_listed() -> None:
    assert len(refused(DeleteUser, {f"field_{number}": 1 for number in range(1000)})) == 20


def test_none_counts_as_left_out() -> None:
    assert build(CreateUser, {**VALID_USER, "is_active": None}).is_active is True


def test_messages_are_equal_by_content_and_cannot_be_changed() -> None:
    message = DeleteUser(user_id=1)

    assert message == DeleteUser(user_id=1) != DeleteUser(user_id=2)
    with pytest.raises(ValidationError):
        message.__setattr__("user_id", 2)  # an assignment would be a type error, too
