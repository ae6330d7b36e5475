"""`--mix.real_floor 0.8`: settings given on the command line.

A key may be written in full (`recipe.mix.real_floor`) or from any level down (`mix.real_floor`) as long as it is clear which one is
meant. Parts of a list go by number or by their `use:` name (`bench.probes.pass_rate.n`).
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from outcross.config.yamlfile import parse_value
from outcross.errors import ConfigError

Key = tuple[str, ...]


def split_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Words of a command line as (positional words, [(key, value)]): `--key value`, `--key=value`, or `--flag` for true.

    Values are YAML: `8`, `1e-3`, `[1, 2]`, `{use: open}`.
    """
    plain: list[str] = []
    found: list[tuple[str, Any]] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        found.append((key.replace("-", "_"), parse_value(text, f"--{key}")))
    return plain, found


def apply(raw: Mapping[str, Any], resolved: Mapping[str, Any], changes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """`raw` (what the run file says) with `changes`. `resolved` is the same with all defaults: it knows which keys exist.

    Raises `ConfigError` for a key that does not exist, or that could mean several.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(raw))
    for name, value in changes:
        key = _match(name, resolved)
        _put(changed, resolved, key, value)
    return changed


def _match(name: str, resolved: Mapping[str, Any]) -> Key:
    wanted = tuple(name.split("."))
    known = dict(_keys(resolved))
    if wanted in known.values():
        return wanted
    hits = sorted({full for spelt, full in known.items() if spelt[-len(wanted) :] == wanted})
    exact = [full for spelt, full in known.items() if spelt == wanted]
    if exact or len(hits) == 1:
        return exact[0] if exact else hits[0]
    if hits:
        listed = ", ".join(f"--{'.'.join(hit)}" for hit in hits)
        raise ConfigError(f"--{name} could mean {len(hits)} settings; write one of {listed}")
    everything = {".".join(full) for full in known.values()}
    tails = {".".join(full[i:]) for full in known.values() for i in range(len(full))}
    near = difflib.get_close_matches(name, sorted(everything | tails), n=3, cutoff=0.6)
    hint = f"did you mean {', '.join('--' + item for item in near)}? " if near else ""
    raise ConfigError(f"--{name} is no setting of this run file; {hint}`outcross validate FILE --config` prints all of them")


def _keys(tree: Any, spelt: Key = (), full: Key = ()) -> Iterator[tuple[Key, Key]]:
    """Every key as people may spell it, with the key it stands for."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield (*spelt, name), (*full, name)
            yield from _keys(value, (*spelt, name), (*full, name))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            aliases = [str(index)]
            if isinstance(value, Mapping) and isinstance(value.get("use"), str):
                aliases.append(value["use"])
            for alias in aliases:
                yield (*spelt, alias), (*full, str(index))
                yield from _keys(value, (*spelt, alias), (*full, str(index)))


def _put(raw: dict[str, Any], resolved: Any, key: Key, value: Any) -> None:
    """Set `key`, writing out on the way down what the file left to defaults or abbreviated."""
    here: Any = raw
    for part in key[:-1]:
        default = resolved[int(part)] if isinstance(resolved, list) else resolved[part]
        slot: Any = int(part) if isinstance(here, list) else part
        below = here[slot] if isinstance(here, list) else here.get(slot)
        here[slot] = _written_out(below, default)
        here, resolved = here[slot], default
    if isinstance(here, list):
        here[int(key[-1])] = value
    else:
        here[key[-1]] = value


def _written_out(below: Any, default: Any) -> Any:
    if below is None:
        return copy.deepcopy(default)
    if isinstance(default, list) and not isinstance(below, list):
        return [below]
    if isinstance(default, Mapping) and isinstance(below, str):
        return {"use": below}
    return below
