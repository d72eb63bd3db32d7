"""JSON schemas of what goes over the wire, generated from the models.

Every schema names others as the contract keeps them, under `#/components/schemas/`.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from producers.messages import Message
from producers.wire import Envelope, Result

Schema = dict[str, Any]

PLACE = "#/components/schemas/"

CODES = {
    "conflict": "a name or an address is taken, or the request contradicts what is there",
    "not_found": "what the request speaks of does not exist",
    "invalid": "the fields are not those of the message",
    "undecodable": "the payload is no envelope of this contract",
    "unknown_job": "no job of this name is known",
    "too_large": "the payload is larger than the worker takes",
    "expired": "the payload was gone before the job's turn came",
    "crashed": "the job took its worker down on every try",
    "timeout": "the job ran for longer than it may",
    "failed": "the job failed on every try",
    "cancelled": "somebody cancelled the job before it was done",
}
"""What each code of an outcome other than done means."""

ENVELOPE_FIELDS = {
    "f": "The name of the job.",
    "k": "The fields of the message.",
    "a": "Positional arguments: always empty, the fields have names.",
    "t": "The number of the first try, or null.",
    "et": "When the client enqueued it, in milliseconds of the Unix clock.",
    "v": "The version of the contract. May be left out.",
    "h": "Headers: `traceparent`, `producer`. May be left out.",
}
RESULT_FIELDS = {
    "f": "The name of the job.",
    "k": "Empty: a result does not repeat the fields.",
    "a": "Empty.",
    "t": "The number of the try that ended the job.",
    "et": "When the client enqueued it, in milliseconds of the Unix clock.",
    "s": "Whether the job is done.",
    "r": "The reply of a done job; else a code and a detail.",
    "st": "When that try began, in milliseconds of the Unix clock.",
    "ft": "When the job ended, in milliseconds of the Unix clock.",
    "q": "The name of the queue.",
    "id": "The job's id.",
}


class MessageSchema(GenerateJsonSchema):
    """JSON schema of messages: where a model says `| None` the wire says "left out", and null is refused."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """The schema without null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema without a default of null."""
        json_schema = super().default_schema(schema)
        if json_schema.get("default", ...) is None:
            del json_schema["default"]
        return json_schema


def components(messages: Iterable[type[Message[Any]]]) -> dict[str, Schema]:
    """All schemas of the contract by name: the models', and for each job those of its payload and of its result."""
    messages = list(messages)
    schemas = _models(messages, "validation", MessageSchema)
    schemas |= _models({message.reply_type() for message in messages}, "serialization", GenerateJsonSchema)
    for message in messages:
        schemas[payload_name(message)] = _payload(message)
        schemas[done_name(message)] = _done(message)
    return schemas


def payload_name(message: type[Message[Any]]) -> str:
    """The name of the schema of a job's whole payload."""
    return f"{message.job}_payload"


def done_name(message: type[Message[Any]]) -> str:
    """The name of the schema of a done job's result."""
    return f"{message.job}_done"


def failure(codes: Iterable[str]) -> Schema:
    """The schema of the result of a job that was not done, for one of these codes."""
    codes = list(codes)
    code = {
        "enum": codes,
        "description": "\n".join(f"- `{name}`: {CODES[name]}" for name in codes),
    }
    detail = {"type": "string", "description": "A sentence, without any value of the message."}
    said = {
        "type": "object",
        "properties": {"code": code, "detail": detail},
        "required": ["code", "detail"],
        "additionalProperties": False,
    }
    return _envelope(Result, RESULT_FIELDS, s={"const": False}, r=said)


def example(schema: Schema, components: dict[str, Schema]) -> dict[str, Any]:
    """A value for each field that must be there, and one change where there are changes."""
    names = schema.get("required") or list(schema["properties"])[:1]
    values = {}
    for name in names:
        field = schema["properties"][name]
        model = components.get(field.get("$ref", "").removeprefix(PLACE))
        values[name] = field["examples"][0] if model is None else example(model, components)
    return values


def _payload(message: type[Message[Any]]) -> Schema:
    return _envelope(
        Envelope,
        ENVELOPE_FIELDS,
        f={"const": message.job},
        k={"$ref": PLACE + message.__name__},
    )


def _done(message: type[Message[Any]]) -> Schema:
    return _envelope(
        Result,
        RESULT_FIELDS,
        f={"const": message.job},
        s={"const": True},
        r={"$ref": PLACE + message.reply_type().__name__},
    )


def _envelope(model: type[BaseModel], descriptions: dict[str, str], **narrower: Schema) -> Schema:
    """The schema of an envelope, with what is known of some of its fields and what is to be said of each."""
    schema = model.model_json_schema()
    del schema["title"]
    schema.pop("description", None)
    for name, known in schema["properties"].items():
        known.pop("title", None)
        schema["properties"][name] = narrower.get(name, known)
        if "$ref" not in schema["properties"][name]:  # beside which nothing else counts
            schema["properties"][name]["description"] = descriptions[name]
    return schema


def _models(
    models: Iterable[type[BaseModel]],
    mode: Literal["validation", "serialization"],
    generator: type[GenerateJsonSchema],
) -> dict[str, Schema]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, mode) for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, definitions = models_json_schema(wanted, ref_template=PLACE + "{model}", schema_generator=generator)
    return dict(definitions["$defs"])
