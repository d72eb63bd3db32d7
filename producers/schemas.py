"""JSON schemas of the wire, generated from the models. They refer to each other under `#/components/schemas/`."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from producers.errors import DETAILS
from producers.messages import Message
from producers.wire import Envelope, Result

Schema = dict[str, Any]

REF_PREFIX = "#/components/schemas/"

ENVELOPE_FIELDS = {
    "f": "The name of the job type.",
    "k": "The fields of the message.",
    "a": "Positional arguments: always empty, because fields have names.",
    "t": "The number of the first attempt, or null.",
    "et": "When the client enqueued it, in milliseconds of the Unix clock.",
    "v": "The version of the contract. May be left out.",
    "h": "Headers: `traceparent`, `producer`. May be left out.",
}
RESULT_FIELDS = {
    "f": "The name of the job type.",
    "k": "Empty: a result does not repeat the fields.",
    "a": "Empty.",
    "t": "The number of the attempt that ended the job.",
    "et": "When the client enqueued it, in milliseconds of the Unix clock.",
    "s": "Whether the job is done.",
    "r": "The reply of a done job, otherwise a code and a detail.",
    "st": "When that attempt began, in milliseconds of the Unix clock.",
    "ft": "When the job ended, in milliseconds of the Unix clock.",
    "q": "The name of the queue.",
    "id": "The job's id.",
}


class MessageSchema(GenerateJsonSchema):
    """JSON schema of messages. A field that is `| None` in a model is optional on the wire, and null is refused."""

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
    """All schemas of the contract by name: of the models, and of each job type's payload and result."""
    messages = list(messages)
    schemas = _models(messages, "validation", MessageSchema)
    schemas |= _models({message.reply_type() for message in messages}, "serialization", GenerateJsonSchema)
    for message in messages:
        schemas[payload_name(message)] = _payload(message)
        schemas[done_name(message)] = _done(message)
    return schemas


def payload_name(message: type[Message[Any]]) -> str:
    """The name of the schema of a job type's whole payload."""
    return f"{message.job}_payload"


def done_name(message: type[Message[Any]]) -> str:
    """The name of the schema of a done job's result."""
    return f"{message.job}_done"


def failure(codes: Iterable[str]) -> Schema:
    """The schema of the result of a job that ended with one of these codes."""
    codes = list(codes)
    code = {
        "enum": codes,
        "description": "\n".join(f"- `{name}`: {DETAILS[name]}" for name in codes),
    }
    detail = {"type": "string", "description": "A sentence, without any value of the message."}
    reply = {
        "type": "object",
        "properties": {"code": code, "detail": detail},
        "required": ["code", "detail"],
        "additionalProperties": False,
    }
    return _envelope(Result, RESULT_FIELDS, s={"const": False}, r=reply)


def example(schema: Schema, components: dict[str, Schema]) -> dict[str, Any]:
    """A value for each required field, or for the first one if none is required."""
    names = schema.get("required") or list(schema["properties"])[:1]
    values = {}
    for name in names:
        field = schema["properties"][name]
        model = components.get(field.get("$ref", "").removeprefix(REF_PREFIX))
        values[name] = field["examples"][0] if model is None else example(model, components)
    return values


def _payload(message: type[Message[Any]]) -> Schema:
    return _envelope(
        Envelope,
        ENVELOPE_FIELDS,
        f={"const": message.job},
        k={"$ref": REF_PREFIX + message.__name__},
    )


def _done(message: type[Message[Any]]) -> Schema:
    return _envelope(
        Result,
        RESULT_FIELDS,
        f={"const": message.job},
        s={"const": True},
        r={"$ref": REF_PREFIX + message.reply_type().__name__},
    )


def _envelope(model: type[BaseModel], descriptions: dict[str, str], **narrower: Schema) -> Schema:
    """The schema of an envelope, with narrower schemas of some fields and descriptions of all."""
    schema = model.model_json_schema()
    del schema["title"]
    schema.pop("description", None)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        schema["properties"][name] = narrower.get(name, field)
        if "$ref" not in schema["properties"][name]:  # JSON Schema ignores siblings of $ref
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
    _, definitions = models_json_schema(wanted, ref_template=REF_PREFIX + "{model}", schema_generator=generator)
    return dict(definitions["$defs"])
