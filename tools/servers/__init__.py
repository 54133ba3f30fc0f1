"""Real servers and proxies on the loopback, for tests and benchmarks; none is part of the package.

Takes: folders, rates, faults. Gives: context managers around processes on free ports of 127.0.0.1.
Effects: each starts a process of its own, which ends with the `with` block, and with this process however that ends.

    nginx(folder)           files over HTTP, with and without ranges, a first byte that comes late, a rate per request
    moto()                  an S3 server                 azurite(folder)         an Azure Blob server
    FaultProxy(url)         passes requests on and breaks some of them
    LimitProxy(url)         passes bytes on, all connections together no faster than a rate
"""

from __future__ import annotations

from servers.azurite_server import AzureAccount, azurite
from servers.child import ServerError
from servers.fault_kinds import KINDS
from servers.fault_proxy import FaultProxy
from servers.limit_proxy import LimitProxy
from servers.moto_server import S3Endpoint, moto
from servers.nginx_server import WebServer, nginx

__all__ = [
    "KINDS",
    "AzureAccount",
    "FaultProxy",
    "LimitProxy",
    "S3Endpoint",
    "ServerError",
    "WebServer",
    "azurite",
    "moto",
    "nginx",
]
