"""llama.cpp's own server (through xllamacpp) for one GGUF file, until it is stopped.

    python tests/loopback/llama_server.py MODEL.gguf [TOKENS_OF_A_SLOT]

prints its URL.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module


def main(path: str, slot: int = 512) -> None:
    """Serve the model on a free port of this machine."""
    xllamacpp = import_module("xllamacpp")  # without types, and in the extra `servers` only
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = 4
    parameters.n_ctx = 4 * slot
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    # As transformers computes: no half precision between the layers.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
