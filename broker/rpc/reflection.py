"""Server reflection under both its names, for tools that have no proto files."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as V1ALPHA
from grpc_reflection.v1alpha.reflection import ReflectionServicer

V1: Final = "grpc.reflection.v1.ServerReflection"

_MOST_STREAMS: Final = 4
_MOST_REQUESTS: Final = 200
_SECONDS: Final = 10.0


class Reflection:
    """
    Describes the services whose files are given (``grpc.reflection.v1`` and ``v1alpha``).

    The two differ in nothing but their name; the library only brings the old one. A stream holds a
    thread for as long as it lasts, so their number, length and time are bounded.
    """

    def __init__(self, files: Iterable[FileDescriptor]) -> None:
        pool, described = DescriptorPool(), [*files, reflection_pb2.DESCRIPTOR]
        for file in described:
            _add(pool, file)
        pool.Add(_renamed(reflection_pb2.DESCRIPTOR))
        names = [
            service.full_name for file in described for service in file.services_by_name.values()
        ]
        self._servicer = ReflectionServicer([*names, V1], pool)
        self._streams = threading.BoundedSemaphore(_MOST_STREAMS)

    def register(self, server: grpc.Server) -> None:
        """Serve both names."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._answer,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for service in (V1, V1ALPHA):
            server.add_registered_method_handlers(service, {"ServerReflectionInfo": handler})

    def _answer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many ask already.")
        timer = threading.Timer(_SECONDS, context.cancel)
        timer.daemon = True
        timer.start()
        try:
            bounded = (request for request, _ in zip(requests, range(_MOST_REQUESTS), strict=False))
            yield from self._servicer.ServerReflectionInfo(bounded, context)
        finally:
            timer.cancel()
            self._streams.release()


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    for dependency in file.dependencies:
        _add(pool, dependency)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    # Adding the same file again changes nothing.
    pool.Add(proto)


def _renamed(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    text = text_format.MessageToString(proto).replace("v1alpha", "v1")
    return text_format.Parse(text, FileDescriptorProto())
