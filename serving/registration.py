"""Registers services so that a request is parsed inside its call, and not by gRPC before it.

Where gRPC's own parsing of a request fails, its server ends the call twice and never forgets it (grpcio 1.66 to 1.85):
20 kB for each message that is no protobuf, until the memory is gone. The answer is the same, INTERNAL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass


def service_handler(service: ServiceDescriptor, servicer: Any) -> grpc.GenericRpcHandler:
    """Makes the handler of a service.

    Args:
        service: Its descriptor; no method takes a stream.
        servicer: Has a method of each name, as the generated servicers do.
    """
    handlers = {}
    for method in service.methods:
        behaviour = _parsing(getattr(servicer, method.name), GetMessageClass(method.input_type))
        kind = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = kind(behaviour, None, GetMessageClass(method.output_type).SerializeToString)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _parsing(behaviour: Callable[..., Any], message_class: Any) -> Callable[..., Any]:
    @functools.wraps(behaviour)  # with its attributes, by which health checks say that they take no thread
    def answer(serialized: bytes, context: grpc.ServicerContext, *more: Any) -> Any:
        try:
            request = message_class.FromString(serialized)
        except DecodeError:
            context.abort(grpc.StatusCode.INTERNAL, f"The request is no {message_class.DESCRIPTOR.full_name}.")
        return behaviour(request, context, *more)

    return answer
