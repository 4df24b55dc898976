"""A plugin of go-plugin's kind that shares no code with the crate: pyvider-rpcplugin, over gRPC's C core.

    plugin.py unix|tcp

Serves the echo service, says where in one line on its output, and ends when its input does. It takes its settings from the
environment as plugins do: TRUNKLINE_PLUGIN must be `echo`; with PLUGIN_CLIENT_CERT it speaks TLS.
"""

import asyncio
import os
import signal
import sys
import threading

from pyvider.rpcplugin import plugin_server
from pyvider.rpcplugin.protocol.base import RPCPluginProtocol

from echo import Echo


class EchoProtocol(RPCPluginProtocol):
    supported_protocol_versions = [1]

    async def get_grpc_descriptors(self):
        return None, "trunkline.echo.v1.Echo"

    async def add_to_server(self, server, handler):
        for service in handler.services():
            server.add_generic_rpc_handlers((service,))


def end_with_input():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


async def main(transport: str):
    config = {
        "PLUGIN_MAGIC_COOKIE_KEY": "TRUNKLINE_PLUGIN",
        "PLUGIN_MAGIC_COOKIE_VALUE": "echo",
        "PLUGIN_PROTOCOL_VERSIONS": [1],
        "PLUGIN_SERVER_TRANSPORTS": [transport],
    }
    server = plugin_server(EchoProtocol(), Echo(), transport=transport, config=config)
    threading.Thread(target=end_with_input, daemon=True).start()
    await server.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
