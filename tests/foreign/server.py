"""A gRPC server that is neither written in Rust nor built on h2: grpcio, over gRPC's C core.

    server.py ADDRESS [NAME=NUMBER ...]

Listens on ADDRESS (`127.0.0.1:0`, `unix:/path`), with these channel options, and says so on its output. Serves until
its input ends, gives calls a second to end, and exits with 0. So it never outlives the test that started it.
"""

import sys
from concurrent import futures

import grpc

from echo import Echo
from interop import Interop

# More than calls that any test has open at once; each takes a thread.
THREADS = 128
GRACE = 1.0


def main(address: str, *options: str):
    settings = [option.split("=") for option in options]
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS),
        options=[(name, int(number)) for name, number in settings],
    )
    for service in Echo().services() + Interop().services():
        server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port(address)
    server.start()
    listening = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    print(f"listening on {listening}", flush=True)
    sys.stdin.read()
    server.stop(GRACE).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
