"""The unary call of proto/echo.proto, and the tally of proto/foreign.proto."""

import collections
import threading
import time

import grpc

from wire import Message, encode

# EchoRequest
ID, PAYLOAD, DELAY_MS = 1, 2, 3
# EchoReply
REPLY_ID, REPLY_PAYLOAD, REPLY_SERVER = 1, 2, 3
# Handled
CALLS, IDS, TWICE, PEAK, PEERS = 1, 2, 3, 4, 5


class Echo:
    """Counts each id that it begins to handle."""

    def __init__(self):
        self._lock = threading.Lock()
        self._calls = collections.Counter()
        self._peers = set()
        self._in_flight = 0
        self._peak = 0

    def services(self):
        echo = {"Unary": grpc.unary_unary_rpc_method_handler(self._unary)}
        tally = {"Handled": grpc.unary_unary_rpc_method_handler(self._handled)}
        return [
            grpc.method_handlers_generic_handler("trunkline.echo.v1.Echo", echo),
            grpc.method_handlers_generic_handler("trunkline.foreign.v1.Tally", tally),
        ]

    def _unary(self, data: bytes, context) -> bytes:
        request = Message(data)
        with self._lock:
            self._calls[request.number(ID)] += 1
            self._peers.add(context.peer())
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
        time.sleep(request.number(DELAY_MS) / 1000)
        with self._lock:
            self._in_flight -= 1
        return encode(
            (REPLY_ID, request.number(ID)),
            (REPLY_PAYLOAD, request.bytes(PAYLOAD)),
            (REPLY_SERVER, "grpcio"),
        )

    def _handled(self, _: bytes, context) -> bytes:
        with self._lock:
            twice = [id for id, count in self._calls.items() if count > 1]
            return encode(
                (CALLS, sum(self._calls.values())),
                (IDS, len(self._calls)),
                (PEAK, self._peak),
                (PEERS, len(self._peers)),
            ) + b"".join(encode((TWICE, id)) for id in twice)
