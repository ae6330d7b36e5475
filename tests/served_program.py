"""A server program for tests of served models: it answers from the model folder it is given, and misbehaves as it is told.

    python served_program.py FOLDER --port 8000 [--host 127.0.0.1] [--die-after 3 …]

A folder may hold answer.txt, a toy model of Outcross, or a Hugging Face model. Answers are drawn from the model, with the request's seed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from outcross.models.categorical import Categorical
from outcross.models.tabular import Tabular
from outcross.types import Message, Request, Sampling


class Program:
    def __init__(self, told: argparse.Namespace) -> None:
        self.told, self.asked = told, 0
        self.models: dict[str, Any] = {str(told.folder): load(told.folder)}

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.told.never_ready else 200)

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked += 1
        if self.told.die_after and self.asked > self.told.die_after and self.lives() <= self.told.die_lives:
            print("I am dying", flush=True)
            os._exit(7)
        await asyncio.sleep(self.told.slow)
        if body["model"] not in self.models:
            return web.json_response({"error": {"message": f"no model {body['model']}"}}, status=404)
        chat = "messages" in body
        try:
            texts = said(self.models[body["model"]], body)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        choices = [
            {"index": i, "finish_reason": "stop", **({"message": {"content": t}} if chat else {"text": t})} for i, t in enumerate(texts)
        ]
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def lives(self) -> int:
        return len(self.told.lives.read_text().splitlines()) if self.told.lives else 1

    async def load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["lora_name"] if self.told.lora == "vllm" else f"{self.told.folder}:{body['lora_name']}"
        try:
            self.models[name] = adapted(self.told.folder, Path(body["lora_path"]), self.told.max_rank)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        print("loaded", name, flush=True)
        return web.Response(text="Success")

    async def unload_adapter(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.models = {key: model for key, model in self.models.items() if not key.endswith(name)}
        print("unloaded", name, flush=True)
        return web.Response(text="Success")

    async def run(self) -> None:
        app = web.Application()
        if not self.told.no_health:
            app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.list)
        app.router.add_post("/v1/completions", self.answer)
        app.router.add_post("/v1/chat/completions", self.answer)
        if self.told.lora:
            prefix = "/v1" if self.told.lora == "vllm" else ""
            app.router.add_post(f"{prefix}/load_lora_adapter", self.load_adapter)
            app.router.add_post(f"{prefix}/unload_lora_adapter", self.unload_adapter)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self.told.host, self.told.port).start()
        print("listening", flush=True)
        await asyncio.Event().wait()


def load(folder: Path) -> Any:
    if (folder / "answer.txt").exists():
        return (folder / "answer.txt").read_text()
    if (folder / "categorical.json").exists():
        return Categorical({"x": 1.0}).load(folder)
    if (folder / "tabular.json").exists():
        return Tabular().load(folder)
    from outcross.models.torch_lm import Machine, torch_lm

    return torch_lm(str(folder), machine=Machine(device="cpu", threads=1))


def adapted(base: Path, adapter: Path, most: int) -> Any:
    """The base model with an adapter, by peft: what a real server computes."""
    import json

    from peft import PeftModel

    if json.loads((adapter / "adapter_config.json").read_text())["r"] > most:
        raise ValueError("the adapter's rank is beyond --max-rank")
    model = load(base)
    model._model = PeftModel.from_pretrained(model._model, str(adapter)).merge_and_unload()
    return model


def said(model: Any, body: dict[str, Any]) -> list[str]:
    prompt = tuple(Message(**item) for item in body["messages"]) if "messages" in body else body["prompt"]
    if isinstance(model, str):
        return [f"{model} {'chat' if 'messages' in body else 'text'} {body.get('seed', 0)}"] * body.get("n", 1)
    sampling = Sampling(temperature=body["temperature"], max_tokens=body["max_tokens"])
    future = model.submit(Request(prompt, body.get("n", 1), sampling, seed=body.get("seed", 0)))
    model.flush()
    if future.result().error:
        raise ValueError(future.result().error)
    return [str(item.content) for item in future.result().completions]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--die-lives", type=int, default=10**6)
    parser.add_argument("--lives", type=Path)
    parser.add_argument("--crash", action="store_true")
    parser.add_argument("--in-use-lives", type=int, default=0)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--no-health", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--child", type=Path)
    parser.add_argument("--lora", choices=["vllm", "sglang"])
    parser.add_argument("--max-rank", type=int, default=10**6)
    told = parser.parse_args()
    if told.lives:
        with told.lives.open("a") as file:
            print(os.getpid(), told.port, os.environ.get("CUDA_VISIBLE_DEVICES", "-") or "none", file=file)
    if told.crash:
        sys.exit("the model cannot be loaded: out of luck")
    if told.in_use_lives and len(told.lives.read_text().splitlines()) <= told.in_use_lives:
        sys.exit("error: address already in use")
    if told.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if told.child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        told.child.write_text(str(child.pid))
    if told.deaf:
        while True:
            try:
                asyncio.run(Program(told).run())
            except KeyboardInterrupt:
                time.sleep(0)
    asyncio.run(Program(told).run())


if __name__ == "__main__":
    main()
