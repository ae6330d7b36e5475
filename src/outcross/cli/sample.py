"""`outcross sample`: try a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, fail, hint, say
from outcross.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from outcross.types import Array


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
    picture: Path = typer.Option(
        Path("outcross-sample.png"), "--out", "-o", help="Of a model of images: the PNG file, a row of images a prompt; it is replaced."
    ),
    chat: bool = typer.Option(False, "--chat", help="Ask as one message of a conversation, through the model's chat template."),
) -> None:
    """Ask a model something.

    Prompts are used as they are; \\n in an argument is a line break. A model of images is asked for classes by their names.
    """
    from outcross.cli.models import completing
    from outcross.types import Array, Message, Request, Sampling

    asked = [prompt.replace("\\n", "\n") for prompt in prompts] if prompts else _lines()
    loaded = completing(model, role)
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    futures = [loaded.submit(Request((Message("user", text),) if chat else text, n, sampling, seed=seed)) for text in asked]
    loaded.flush()
    images: list[Array] = []
    for prompt, future in zip(asked, futures, strict=True):
        response = future.result()
        if response.error:
            fail(ModelError(response.error), f"{model} did not answer {prompt!r:.60}: {response.error}", ModelError.exit_code)
        for completion in response.completions:
            if isinstance(answer := completion.content, Array):
                images.append(answer)
                continue
            say(f"{prompt}{answer}" if not chat and len(asked) * n > 1 else answer)
            if not completion.finished:
                hint(f"(cut off at {max_tokens} tokens)")
    loaded.close()
    if images:
        _write(picture, images, n)


def _write(path: Path, images: Sequence[Array], columns: int) -> None:
    """One picture, a row of `columns` images a prompt."""
    from outcross.images import grid, png

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(grid(images, columns)))
    shape = " × ".join(map(str, images[0].shape))
    say(f"{path}  ({len(images):,} images of {shape} pixels, {columns} a row, a row a prompt)")


def _lines() -> Sequence[str]:
    if sys.stdin.isatty():
        raise ConfigError("no prompt is given; write one after the model, or pipe prompts in, one per line")
    found = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise ConfigError("standard input holds no prompt; write one per line")
    return found
