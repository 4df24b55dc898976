"""A gRPC server that is neither written in Rust nor built on h2: grpcio, over gRPC's C core.

    server.py ADDRESS [NAME=NUMBER ...] [tls.NAME=FILE ...]

Listens on ADDRESS (`127.0.0.1:0`, `unix:/path`), with these channel options, and says so on its output. Serves until
its input ends, gives calls a second to end, and exits with 0. So it never outlives the test that started it.

With `tls.chain` and `tls.key` it takes nothing but TLS; with `tls.clients`, the root of their certificates, clients must
have one.
"""

import sys
from concurrent import futures

import grpc

from clinic import Clinic
from echo import Echo
from interop import Interop

# More than calls that any test has open at once; each takes a thread.
THREADS = 128
GRACE = 1.0


def main(address: str, *options: str):
    settings = [option.split("=", 1) for option in options]
    files = {name: file for name, file in settings if name.startswith("tls.")}
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS),
        options=[(name, int(number)) for name, number in settings if name not in files],
    )
    for service in Echo().services() + Interop().services():
        server.add_generic_rpc_handlers((service,))
    Clinic().add_to(server)
    if files:
        port = server.add_secure_port(address, credentials(files))
    else:
        port = server.add_insecure_port(address)
    server.start()
    listening = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    print(f"listening on {listening}", flush=True)
    sys.stdin.read()
    server.stop(GRACE).wait()


def credentials(files):
    def read(name):
        with open(files[name], "rb") as file:
            return file.read()

    clients = read("tls.clients") if "tls.clients" in files else None
    pair = (read("tls.key"), read("tls.chain"))
    return grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)


if __name__ == "__main__":
    main(*sys.argv[1:])
