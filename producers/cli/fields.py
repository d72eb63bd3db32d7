"""The fields of a message as flat names and texts, for options of the command line and cells of CSV.

The fields of `changes` are flat names, too. A text is converted to the type of its field.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast, get_args

from producers.messages import MESSAGES, Message
from producers.schemas import MessageSchema

Kind = Literal["string", "integer", "boolean"]

_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class FlatField:
    """A field of a message, or of its `changes`."""

    name: str
    within: str | None
    """The field of the message that contains it; None: the message itself."""
    kind: Kind
    required: bool
    description: str
    example: str


@cache
def flat_fields(message: type[Message[Any]]) -> dict[str, FlatField]:
    """The fields of a message by name, in order.

    >>> from producers.messages import UpdatePost
    >>> [(field.name, field.within, field.kind) for field in flat_fields(UpdatePost).values()]
    [('post_id', None, 'integer'), ('title', 'changes', 'string'), ('content', 'changes', 'string')]

    Raises:
        TypeError: the message has no flat form.
    """
    schema = message.model_json_schema(schema_generator=MessageSchema)
    flat: dict[str, FlatField] = {}
    for name, field in schema["properties"].items():
        part = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2])
        fields = (
            [_flat(name, None, field, schema)]
            if part is None
            else [_flat(inner, name, described, part) for inner, described in part["properties"].items()]
        )
        for found in fields:
            if found.name in flat:
                raise TypeError(f"{message.__name__} has two fields called {found.name}")
            flat[found.name] = found
    return flat


def all_names() -> list[str]:
    """The names of the fields of all messages, without repetition."""
    return list(dict.fromkeys(name for message in MESSAGES.values() for name in flat_fields(message)))


def nest(message: type[Message[Any]], texts: Mapping[str, str | bool]) -> dict[str, Any]:
    """The fields of a message, not validated yet, from flat values.

    >>> from producers.messages import UpdateUser
    >>> nest(UpdateUser, {"user_id": "42", "is_active": "no"})
    {'changes': {'is_active': False}, 'user_id': 42}
    """
    known = flat_fields(message)
    fields: dict[str, Any] = {field.within: {} for field in known.values() if field.within is not None}
    for name, text in texts.items():
        field = known.get(name)
        if field is None:
            fields[name] = text  # refused by the message
            continue
        (fields if field.within is None else fields[field.within])[name] = coerce(field.kind, text)
    return fields


def coerce(kind: Kind, text: str | bool) -> str | int | bool:
    """Convert a text to the type of a field. An unreadable text is returned unchanged, and the message refuses it.

    >>> coerce("integer", " 42 "), coerce("boolean", "Yes"), coerce("string", "42"), coerce("integer", "seven")
    (42, True, '42', 'seven')
    """
    if isinstance(text, bool):
        return text
    word = text.strip()
    if kind == "integer" and _INTEGER.fullmatch(word):
        return int(word)
    if kind == "boolean" and word.lower() in _TRUE | _FALSE:
        return word.lower() in _TRUE
    return text


def _flat(name: str, within: str | None, field: dict[str, Any], schema: dict[str, Any]) -> FlatField:
    kind = field.get("type")
    if kind not in get_args(Kind):
        raise TypeError(f"the field {name} is not a string, an integer or a boolean: it has no flat form")
    default = f"Default: {json.dumps(field['default'])}." if "default" in field else None
    return FlatField(
        name=name,
        within=within,
        kind=cast("Kind", kind),
        required=name in schema.get("required", ()),
        description=" ".join(part for part in (field.get("description"), default) if part),
        example=str(field.get("examples", ["…"])[0]),
    )
