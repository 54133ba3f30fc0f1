"""The process of `servers.moto`: moto's S3 server on a free port.

Takes: nothing. Gives: one JSON line with its port, once it listens. Effects: serves until its stdin closes.
"""

from __future__ import annotations

import json
import logging
import sys
from threading import Thread

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    """Serve until the parent closes our stdin."""
    # A line for each request would fill the file that stderr goes to.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
