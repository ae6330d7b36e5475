"""llama.cpp's own HTTP server, from the wheel `xllamacpp`: `python llama_program.py MODEL.gguf --port 8000` is `llama-server -m MODEL.gguf`."""

from __future__ import annotations

import argparse
import threading

import xllamacpp

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--parallel", type=int, default=4)
parser.add_argument("--context", type=int, default=2048)
told = parser.parse_args()
asked = xllamacpp.CommonParams()
asked.model.path, asked.hostnames, asked.port = told.model, ["127.0.0.1"], told.port
asked.n_parallel, asked.n_ctx, asked.cpuparams.n_threads = told.parallel, told.context, told.threads
server = xllamacpp.Server(asked)
threading.Event().wait()
