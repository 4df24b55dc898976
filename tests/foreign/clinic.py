"""grpc.health.v1.Health, as grpcio-health-checking has it, and what tells it what to say: proto/foreign.proto's Clinic."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from wire import Message

# SayRequest
SERVICE, STATUS = 1, 2


class Clinic:
    def __init__(self):
        self._health = health.HealthServicer()

    def add_to(self, server):
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        clinic = {"Say": grpc.unary_unary_rpc_method_handler(self._say)}
        handler = grpc.method_handlers_generic_handler("trunkline.foreign.v1.Clinic", clinic)
        server.add_generic_rpc_handlers((handler,))

    def _say(self, data: bytes, context) -> bytes:
        request = Message(data)
        self._health.set(request.text(SERVICE), request.number(STATUS))
        return b""
