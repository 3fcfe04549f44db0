"""The hand-kept subset of Modal's API says the same as the installed SDK, field by field.

Messages that only pass through are declared as `bytes` and marked `relayed: <message>` in a comment; that is the only
way in which a declaration may differ from the SDK's.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from modal_proto import api_pb2

from local_modal import REPOSITORY

PACKAGE = "modal.client"
MESSAGE_FIELD = 2  # DescriptorProto.field
NESTED_MESSAGE = 3  # DescriptorProto.nested_type
TOP_LEVEL_MESSAGE = 4  # FileDescriptorProto.message_type
RELAYED = re.compile(r"relayed: ([\w.]+)")


def full_names(messages: dict[str, DescriptorProto], prefix: str, message: DescriptorProto) -> None:
    """Collects a message and those nested in it under their names without the package."""
    name = f"{prefix}{message.name}"
    messages[name] = message
    for nested in message.nested_type:
        full_names(messages, f"{name}.", nested)


def enums_of(files: list[FileDescriptorProto], messages: dict[str, DescriptorProto]) -> dict[str, EnumDescriptorProto]:
    enums = {enum.name: enum for file in files for enum in file.enum_type}
    for name, message in messages.items():
        enums |= {f"{name}.{enum.name}": enum for enum in message.enum_type}
    return enums


def messages_of(files: list[FileDescriptorProto]) -> dict[str, DescriptorProto]:
    messages: dict[str, DescriptorProto] = {}
    for file in files:
        for message in file.message_type:
            full_names(messages, "", message)
    return messages


def relayed_fields(file: FileDescriptorProto) -> Iterator[tuple[str, str, str]]:
    """Message, field and real type of each field that is marked as relayed."""
    for location in file.source_code_info.location:
        marked = RELAYED.search(location.trailing_comments)
        if not marked:
            continue
        path = list(location.path)
        assert path[0] == TOP_LEVEL_MESSAGE, f"a mark that belongs to no field: {location.trailing_comments}"
        message, name = file.message_type[path[1]], file.message_type[path[1]].name
        path = path[2:]
        while path[0] == NESTED_MESSAGE:
            message = message.nested_type[path[1]]
            name, path = f"{name}.{message.name}", path[2:]
        assert path[0] == MESSAGE_FIELD
        yield name, message.field[path[1]].name, marked[1]


@pytest.fixture(scope="module")
def ours() -> list[FileDescriptorProto]:
    program = REPOSITORY / "target/debug/examples/generate"
    descriptors = subprocess.run([program, "descriptors"], check=True, stdout=subprocess.PIPE).stdout
    files = FileDescriptorSet.FromString(descriptors).file
    return [file for file in files if file.package == PACKAGE]


@pytest.fixture(scope="module")
def theirs() -> FileDescriptorProto:
    file = FileDescriptorProto()
    api_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str | None:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return None
    return message.oneof_decl[field.oneof_index].name


def test_messages_and_enums_match_the_sdk(ours: list[FileDescriptorProto], theirs: FileDescriptorProto) -> None:
    relayed = {(message, field): real for file in ours for message, field, real in relayed_fields(file)}
    real_messages = messages_of([theirs])
    messages = messages_of(ours)
    assert len(messages) > 100, "the subset was not read"
    wrong = []
    for name, message in messages.items():
        if name not in real_messages:
            wrong.append(f"{name} is not a message of the SDK")
            continue
        real_fields = {field.name: field for field in real_messages[name].field}
        for field in message.field:
            real = real_fields.get(field.name)
            if real is None:
                wrong.append(f"{name}.{field.name} is not in the SDK")
                continue
            expected_type, expected_name = real.type, real.type_name
            if real_type := relayed.pop((name, field.name), None):
                if (real.type, real.type_name) != (
                    FieldDescriptorProto.TYPE_MESSAGE,
                    f".{PACKAGE}.{real_type}",
                ):
                    wrong.append(f"{name}.{field.name} is marked as a relayed {real_type}, which it is not")
                expected_type, expected_name = FieldDescriptorProto.TYPE_BYTES, ""
            found = (
                field.number,
                field.label,
                field.type,
                field.type_name,
                field.proto3_optional,
                oneof(message, field),
            )
            expected = (
                real.number,
                real.label,
                expected_type,
                expected_name,
                real.proto3_optional,
                oneof(real_messages[name], real),
            )
            if found != expected:
                wrong.append(f"{name}.{field.name} is {found}, and {expected} in the SDK")
    for name, enum in enums_of(ours, messages).items():
        real_enum = enums_of([theirs], real_messages)[name]
        real_values = {value.name: value.number for value in real_enum.value}
        if {value.name: value.number for value in enum.value} != real_values:
            wrong.append(f"the values of {name} differ")
    assert not wrong, "\n".join(wrong)
    assert not relayed, f"marks that belong to no field: {relayed}"


def test_methods_match_the_sdk(ours: list[FileDescriptorProto], theirs: FileDescriptorProto) -> None:
    (service,) = [service for file in ours for service in file.service]
    (real_service,) = [s for s in theirs.service if s.name == service.name]
    real_methods = {method.name: method for method in real_service.method}

    def shape(method: MethodDescriptorProto) -> tuple[object, ...]:
        return (method.input_type, method.output_type, method.client_streaming, method.server_streaming)

    assert len(service.method) > 50
    wrong = [m.name for m in service.method if m.name not in real_methods or shape(m) != shape(real_methods[m.name])]
    assert not wrong


def test_subset_follows_the_installed_sdk() -> None:
    import modal

    source = Path(REPOSITORY, "modal/proto/src/lib.rs").read_text()
    assert f'SDK_VERSION: &str = "{modal.__version__}"' in source
