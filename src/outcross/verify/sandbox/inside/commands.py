"""Programs in other languages, seen from the tester: written to a folder, built, and then started as Python programs are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def prepared(language: dict[str, Any], program: str, folder: str) -> dict[str, Any]:
    """Write the program into `folder`; gives the messages that start its commands: {"build": … or None, "run": …}."""
    places = {"{file}": f"{folder}/{language['file']}", "{out}": f"{folder}/program", "{folder}": folder}
    Path(places["{file}"]).write_text(program, encoding="utf-8", errors="surrogatepass")

    def message(words: list[str], told: bool) -> dict[str, Any] | None:
        filled = [_filled(word, places) for word in words]
        return {"words": filled, "folder": folder, "told": told} if filled else None

    return {"build": message(language["build"], True), "run": message(language["run"], False)}


def _filled(word: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        word = word.replace(place, value)
    return word


def missing(language: dict[str, Any]) -> str:
    """The first command that is not here; empty when there is none. What a program does cannot be mistaken for it."""
    first = [words[0] for words in (language["build"], language["run"]) if words and "{" not in words[0]]
    return next((name for name in first if not shutil.which(name)), "")
