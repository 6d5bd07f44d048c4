"""llama.cpp's own server (through xllamacpp) for one GGUF file, until it is stopped.

    python tests/loopback/llama_server.py MODEL.gguf

prints its URL.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module


def main(path: str) -> None:
    """Serve the model on a free port of this machine."""
    xllamacpp = import_module("xllamacpp")  # without types, and in the extra `servers` only
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = 4
    parameters.n_ctx = 2048
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
