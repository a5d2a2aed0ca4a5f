"""Call a relay from wherever this program runs: ``python -m tests.relay.call [OPTIONS] SERVICE/METHOD JSON ...``.

Each answer is a line of JSON, and so is the last one of a call, with the status that it has ended with.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from cfctl.relay.certificates import NAME
from cfctl.v1 import device_pb2


def _channel(options: argparse.Namespace) -> grpc.Channel:
    if options.pem is None:
        return grpc.insecure_channel(options.address)
    credentials = grpc.ssl_channel_credentials(Path(options.pem).read_bytes())
    return grpc.secure_channel(options.address, credentials, options=[("grpc.ssl_target_name_override", NAME)])


def _error(failed: Any) -> dict[str, Any] | None:
    for key, value in failed.trailing_metadata() or ():
        if key == "cfctl-error-bin":
            return MessageToDict(device_pb2.Error.FromString(value), preserving_proto_field_name=True)
    return None


def main() -> None:
    """Call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="unix:/run/cfctl/relay.sock")
    parser.add_argument("--pem")
    parser.add_argument("--token")
    parser.add_argument("--until", help="cancel the call after an answer that has this in it")
    parser.add_argument("calls", nargs="+", help="methods, and what they are asked, in turn")
    options = parser.parse_args()
    with _channel(options) as channel:
        for method, request in zip(options.calls[::2], options.calls[1::2], strict=True):
            print(json.dumps({"ended": _called(channel, method, json.loads(request), options)}), flush=True)


def _called(channel: grpc.Channel, name: str, asked: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Make a call, print what is answered, and return how it has ended."""
    service, _, short = name.partition("/")
    module = importlib.import_module(f"cfctl.v1.{service.lower()}_pb2")
    method = module.DESCRIPTOR.services_by_name[service].methods_by_name[short]
    make: Any = channel.unary_stream
    call = make(
        f"/cfctl.v1.{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = [("authorization", f"Bearer {options.token}")] if options.token else None
    answers = call(ParseDict(asked, GetMessageClass(method.input_type)()), timeout=120, metadata=metadata)
    try:
        for answer in answers:
            line = json.dumps(MessageToDict(answer, preserving_proto_field_name=True))
            print(line, flush=True)
            if options.until and options.until in line:
                answers.cancel()
    except grpc.RpcError as failed:
        code: Any = failed
        return {"status": code.code().name, "said": code.details(), "error": _error(failed)}
    return {"status": "OK"}


if __name__ == "__main__":
    main()
