"""`outcross sample`: try a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from outcross.cli.shell import command, fail, hint, say
from outcross.errors import ConfigError, ModelError


@command
def sample(
    model: str = typer.Argument(help="A run (its champion), a model folder, a hub name or a .gguf file.", metavar="MODEL"),
    prompts: list[str] | None = typer.Argument(None, help="What to say to it; standard input, one prompt per line, when left out."),
    n: int = typer.Option(1, "-n", help="Answers per prompt.", min=1),
    temperature: float = typer.Option(1.0, help="0 takes the likeliest token each time.", min=0.0),
    top_p: float = typer.Option(1.0, help="Draw from the likeliest tokens that together have this probability.", min=0.0, max=1.0),
    max_tokens: int = typer.Option(256, help="Longest answer.", min=1),
    seed: int = typer.Option(0, help="The same seed draws the same answers."),
    role: str = typer.Option("policy", help="Which role's champion, of a run that taught several."),
    chat: bool = typer.Option(False, "--chat", help="Ask as one message of a conversation, through the model's chat template."),
) -> None:
    """Ask a model something.

    Prompts are used as they are; \\n in an argument is a line break.
    """
    from outcross.cli.models import completing
    from outcross.types import Message, Request, Sampling

    asked = [prompt.replace("\\n", "\n") for prompt in prompts] if prompts else _lines()
    loaded = completing(model, role)
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    futures = [loaded.submit(Request((Message("user", text),) if chat else text, n, sampling, seed=seed)) for text in asked]
    loaded.flush()
    for prompt, future in zip(asked, futures, strict=True):
        response = future.result()
        if response.error:
            fail(ModelError(response.error), f"{model} did not answer {prompt!r:.60}: {response.error}", ModelError.exit_code)
        for completion in response.completions:
            answer = completion.content if isinstance(completion.content, str) else f"<{completion.content.dtype} array>"
            say(f"{prompt}{answer}" if not chat and len(asked) * n > 1 else answer)
            if not completion.finished:
                hint(f"(cut off at {max_tokens} tokens)")
    loaded.close()


def _lines() -> Sequence[str]:
    if sys.stdin.isatty():
        raise ConfigError("no prompt is given; write one after the model, or pipe prompts in, one per line")
    found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise ConfigError("standard input holds no prompt; write one per line")
    return found
