"""The published contract: complete, in agreement with the models, and the same each time."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from producers import contract, keys, schemas
from producers.errors import CANCELLED, DEAD_CODES, DETAILS, REJECTED_CODES
from producers.messages import MESSAGES, Message
from producers.wire import Envelope, Result, decode, decode_result
from tests.waiting import PATIENCE_SECONDS

Document = dict[str, Any]


# Other tests may have declared more messages.
OURS = {job: message for job, message in MESSAGES.items() if message.__module__ == "producers.messages"}


@pytest.fixture(scope="module")
def document() -> Document:
    return contract.asyncapi(OURS)


def walk(node: object, path: str = "#") -> Iterator[tuple[str, Any]]:
    """Every object of the document, with its path."""
    if isinstance(node, dict):
        yield path, node
        for name, inner in node.items():
            yield from walk(inner, f"{path}/{name}")
    elif isinstance(node, list):
        for position, inner in enumerate(node):
            yield from walk(inner, f"{path}/{position}")


def resolve(document: Document, reference: str) -> Any:
    """The target of a reference; KeyError if there is none."""
    start, *path = reference.split("/")
    assert start == "#"
    found: Any = document
    for name in path:
        found = found[name]
    return found


def payload_schema(document: Document, message: str) -> Any:
    return resolve(document, document["components"]["messages"][message]["payload"]["$ref"])


def test_every_reference_has_a_target_and_no_siblings(document: Document) -> None:
    references = [(path, node) for path, node in walk(document) if "$ref" in node]

    assert len(references) > 50
    for path, node in references:
        assert isinstance(resolve(document, node["$ref"]), dict), path
        assert set(node) == {"$ref"}, path


def test_every_component_is_used(document: Document) -> None:
    used = {node["$ref"] for _, node in walk(document) if "$ref" in node}

    for kind, components in document["components"].items():
        for name in components:
            assert f"#/components/{kind}/{name}" in used


def test_the_document_has_the_structure_of_asyncapi_3(document: Document) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    for server in document["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for channel in document["channels"].values():
        assert set(channel["parameters"]) == {part.partition("}")[0] for part in channel["address"].split("{")[1:]}
        assert all(node["$ref"].startswith("#/components/messages/") for node in channel["messages"].values())
    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}
        # An operation may only name messages of its own channel.
        for node in (operation, operation["reply"]):
            channel = node["channel"]["$ref"]
            assert all(message["$ref"].startswith(f"{channel}/messages/") for message in node["messages"])
    for path, node in walk(document):
        if path.rpartition("/")[2] == "bindings":
            assert node == {"redis": {}}, "the redis binding has no fields"


def test_every_job_type_has_an_operation_with_its_replies(document: Document) -> None:
    assert list(document["operations"]) == [
        "create_user",
        "update_user",
        "delete_user",
        "create_post",
        "update_post",
        "delete_post",
    ]
    for job, operation in document["operations"].items():
        assert [node["$ref"].rpartition("/")[2] for node in operation["messages"]] == [job]
        replies = [node["$ref"].rpartition("/")[2] for node in operation["reply"]["messages"]]
        assert replies == [f"{job}_done", "rejected", "dead", "cancelled"]


def test_the_schema_of_a_payload_is_the_whole_envelope(document: Document) -> None:
    for job, message in OURS.items():
        schema = payload_schema(document, job)

        assert set(schema["properties"]) == set(Envelope.model_fields)
        assert schema["required"] == ["f", "k", "a", "t", "et"]
        assert schema["additionalProperties"] is False
        assert schema["properties"]["f"]["const"] == job
        assert schema["properties"]["v"]["const"] == 1
        assert schema["properties"]["k"] == {"$ref": f"#/components/schemas/{message.__name__}"}


def test_the_schema_of_a_message_is_that_of_its_model(document: Document) -> None:
    for message in OURS.values():
        schema = document["components"]["schemas"][message.__name__]

        assert set(schema["properties"]) == set(message.model_fields)
        assert set(schema.get("required", [])) == {
            name for name, field in message.model_fields.items() if field.is_required()
        }
        assert schema["additionalProperties"] is False


def test_no_field_of_a_message_may_be_null(document: Document) -> None:
    for name in ("UserChanges", "PostChanges", *(message.__name__ for message in OURS.values())):
        text = json.dumps(document["components"]["schemas"][name])
        assert "null" not in text


def test_changes_are_not_empty(document: Document) -> None:
    for name in ("UserChanges", "PostChanges"):
        assert document["components"]["schemas"][name]["minProperties"] == 1
        assert "required" not in document["components"]["schemas"][name]


def test_the_schema_and_the_model_accept_the_same_lengths(document: Document) -> None:
    user = document["components"]["schemas"]["CreateUser"]["properties"]
    post = document["components"]["schemas"]["CreatePost"]["properties"]

    assert (user["email"]["maxLength"], user["username"]["maxLength"], user["hashed_password"]["maxLength"]) == (
        254,
        64,
        255,
    )
    assert (post["title"]["maxLength"], post["content"]["maxLength"]) == (200, 65_536)
    assert (post["author_id"]["minimum"], post["author_id"]["maximum"]) == (1, 2**63 - 1)


def test_the_models_accept_the_examples(document: Document) -> None:
    for job, message in OURS.items():
        (example,) = document["components"]["messages"][job]["examples"]
        envelope = decode(json.dumps(example["payload"]).encode())

        assert isinstance(MESSAGES[envelope.f].model_validate(envelope.k), message)


def test_ordering_keys_are_those_of_the_messages(document: Document) -> None:
    ordering_keys = {job: document["components"]["messages"][job]["x-ordering-key"] for job in OURS}

    assert ordering_keys == {
        "create_user": None,
        "update_user": "user:{user_id}",
        "delete_user": "user:{user_id}",
        "create_post": None,
        "update_post": "post:{post_id}",
        "delete_post": "post:{post_id}",
    }


def test_every_code_is_described(document: Document) -> None:
    codes = {
        name: payload_schema(document, name)["properties"]["r"]["properties"]["code"]
        for name in ("rejected", "dead", "cancelled")
    }

    assert {name: set(code["enum"]) for name, code in codes.items()} == {
        "rejected": REJECTED_CODES,
        "dead": DEAD_CODES,
        "cancelled": {CANCELLED},
    }
    assert set(DETAILS) == REJECTED_CODES | DEAD_CODES | {CANCELLED}
    assert all(
        f"`{code}`: {DETAILS[code]}" in schema["description"] for schema in codes.values() for code in schema["enum"]
    )


def test_the_schema_of_a_result_describes_the_model_of_a_result(document: Document) -> None:
    assert set(schemas.ENVELOPE_FIELDS) == set(Envelope.model_fields)
    assert set(schemas.RESULT_FIELDS) == set(Result.model_fields)
    for job, message in OURS.items():
        schema = payload_schema(document, f"{job}_done")
        assert schema["properties"]["s"]["const"] is True
        assert schema["properties"]["r"]["$ref"].endswith(f"/{message.reply_type().__name__}")
        assert set(schema["required"]) == {"f", "k", "a", "t", "et", "s", "r", "st", "ft"}
    failed = {"f": "f", "k": {}, "a": [], "t": 1, "et": 1, "s": False, "st": 1, "ft": 1}
    reply = {"code": "conflict", "detail": "d"}
    assert decode_result(json.dumps({**failed, "r": reply}).encode()).error is not None


def test_the_commands_of_the_wire_use_the_real_keys(document: Document) -> None:
    queue, results = document["channels"]["queue"], document["channels"]["results"]
    put, add, wake = queue["x-redis"]["transaction"]

    assert (put["command"], put["key"]) == ("SET", keys.job("{job_id}"))
    assert (add["command"], add["key"], add["member"]) == ("ZADD", "{queue}", "{job_id}")
    assert (wake["command"], wake["channel"], wake["optional"]) == ("PUBLISH", keys.wake("{queue}"), True)
    assert queue["parameters"]["queue"]["default"] == keys.DEFAULT_QUEUE
    assert results["address"] == keys.result("{job_id}")
    assert results["x-redis"]["read"] == [{"command": "GET", "key": keys.result("{job_id}")}]
    assert results["x-redis"]["subscribe"][0]["channel"] == keys.results("{queue}", "{producer}")
    for text in ("SET", "ZADD", "MULTI", "[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", "ordering key"):
        assert text in queue["description"]


def test_the_document_is_json_and_the_same_in_every_process() -> None:
    source = "from producers.contract import asyncapi_json; import sys; sys.stdout.write(asyncapi_json())"
    texts = [
        subprocess.run(
            [sys.executable, "-c", source],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=PATIENCE_SECONDS,
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    ]

    assert texts[0] == texts[1]
    assert texts[0].endswith("}\n")
    assert json.loads(texts[0])["asyncapi"] == "3.0.0"


def test_every_message_is_described() -> None:
    for message in OURS.values():
        assert inspect.getdoc(message) != inspect.getdoc(Message)
