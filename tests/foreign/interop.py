"""The server of gRPC's interoperability tests (proto/testing.proto), and its journal (proto/foreign.proto).

https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md, part "Server". What grpcio gives no sight of
is whether a request's messages were compressed: `expect_compressed` is not looked at.
"""

import threading
import time

import grpc

from wire import Message, encode, encode_list

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"

# SimpleRequest
SIZE, PAYLOAD, COMPRESSED, STATUS = 2, 3, 6, 7
# StreamingInputCallRequest
INPUT_PAYLOAD = 1
# StreamingOutputCallRequest; its payload and status are numbered as a SimpleRequest's
PARAMETERS = 2
# ResponseParameters
PART_SIZE, PART_INTERVAL_US, PART_COMPRESSED = 1, 2, 3
# Payload
BODY = 2
# Call
METHOD, REMAINING_MS, END, CASE = 1, 2, 3, 4
OPEN, FINISHED, CANCELLED = 0, 1, 2

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Interop:
    def __init__(self):
        self._lock = threading.Lock()
        self._calls = []

    def services(self):
        test = {
            "EmptyCall": grpc.unary_unary_rpc_method_handler(self._empty),
            "UnaryCall": grpc.unary_unary_rpc_method_handler(self._unary),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self._input),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self._output),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self._duplex),
        }
        journal = {"Calls": grpc.unary_unary_rpc_method_handler(self._journal)}
        return [
            grpc.method_handlers_generic_handler("grpc.testing.TestService", test),
            grpc.method_handlers_generic_handler("trunkline.foreign.v1.Journal", journal),
        ]

    def _empty(self, _: bytes, context) -> bytes:
        self._call("EmptyCall", context)
        return b""

    def _unary(self, data: bytes, context) -> bytes:
        self._call("UnaryCall", context)
        request = Message(data)
        fail_if_asked(request, context)
        # Before the headers leave, which say what the messages are compressed with.
        choose_compression(request, COMPRESSED, context)
        echo_metadata(context)
        return response(request.number(SIZE))

    def _input(self, messages, context) -> bytes:
        self._call("StreamingInputCall", context)
        sizes = [len(Message(it).message(INPUT_PAYLOAD).bytes(BODY)) for it in messages]
        return encode((1, sum(sizes)))

    def _output(self, data: bytes, context):
        self._call("StreamingOutputCall", context)
        yield from self._responses(Message(data), context)

    def _duplex(self, messages, context):
        self._call("FullDuplexCall", context)
        echo_metadata(context)
        for data in messages:
            request = Message(data)
            fail_if_asked(request, context)
            yield from self._responses(request, context)

    def _responses(self, request: Message, context):
        for part in request.messages(PARAMETERS):
            time.sleep(part.number(PART_INTERVAL_US) / 1e6)
            choose_compression(part, PART_COMPRESSED, context)
            yield response(part.number(PART_SIZE))

    def _call(self, method: str, context):
        """Notes the call now, and its end when that has come."""
        call = {
            "method": method,
            "remaining": remaining_ms(context),
            "end": OPEN,
            "case": dict(context.invocation_metadata()).get("x-case", ""),
        }
        with self._lock:
            self._calls.append(call)

        def ended():
            call["end"] = CANCELLED if was_cancelled(context) else FINISHED

        if not context.add_callback(ended):
            ended()

    def _journal(self, _: bytes, context) -> bytes:
        """All calls so far."""
        with self._lock:
            return encode_list(
                1,
                [
                    encode(
                        (METHOD, it["method"]),
                        (REMAINING_MS, it["remaining"]),
                        (END, it["end"]),
                        (CASE, it["case"]),
                    )
                    for it in self._calls
                ],
            )


def response(size: int) -> bytes:
    """A message whose first field is a payload of that many zeros."""
    return encode((1, encode((BODY, bytes(size)))))


def fail_if_asked(request: Message, context):
    if request.has(STATUS):
        status = request.message(STATUS)
        context.abort(CODES[status.number(1)], status.text(2))


def choose_compression(message: Message, field: int, context):
    """For the next response: nothing asked means nothing changed."""
    if not message.has(field):
        return
    if message.message(field).number(1):
        context.set_compression(grpc.Compression.Gzip)
    else:
        context.disable_next_message_compression()


def echo_metadata(context):
    sent = dict(context.invocation_metadata())
    if TRAILING in sent:
        context.set_trailing_metadata([(TRAILING, sent[TRAILING])])
    if INITIAL in sent:
        context.send_initial_metadata([(INITIAL, sent[INITIAL])])


def was_cancelled(context) -> bool:
    """Whether the call that has ended did so before its status was out.

    The core tells, and there is no public way to ask: to the service a cancelled request may look like one that has
    come to its end.
    """
    return context._state.client == grpc._server._CANCELLED


def remaining_ms(context) -> int:
    """Until the deadline that the client told; 0 if it told none."""
    remaining = context.time_remaining()
    if remaining is None or remaining > 1e9:
        return 0
    return max(1, int(remaining * 1000))
