"""`placement:` in a run file: which device or host each role's model is on. None of it enters a fingerprint.

placement:
  policy: {device: cuda:0, server: cuda:1}     trained on one GPU, served on another
  judge: cuda:1                                a local model, or all that a served one uses
  teacher: {host: "http://other:8000/v1"}      an endpoint's base url; of a served model, what it listens on (with `port`)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from outcross.config import find
from outcross.config.annotations import parameters
from outcross.config.bind import Given, Place, Planned, bind_call
from outcross.errors import ConfigError, did_you_mean
from outcross.models.served_process import ServerPlace
from outcross.stages import Role
from outcross.train.machine import Machine

_DEVICE, _DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?"), re.compile(r"auto|cpu|cuda(:\d+(,\d+)*)?")
_DEVICE_WORDS = "auto, cpu, mps, cuda or cuda:0"


@dataclass(frozen=True)
class Seat:
    """Where one role's model is. `server`: the devices of a served model's server, where they are not `device`."""

    device: str | None = None
    server: str | None = None
    host: str | None = None
    port: int | None = None

    @property
    def own_device(self) -> str | None:
        """The one device of the model in this process."""
        return None if self.device is None else self.device.split(",")[0]


def read_seats(raw: Mapping[str, Any], models: Mapping[Role, Any], target: Callable[[Role], Role]) -> dict[Role, Seat]:
    """Seats by the role that names the model; `target` follows aliases. Raises `ConfigError`."""
    found: dict[Role, tuple[Role, Seat]] = {}
    for role, value in raw.items():
        if role not in models:
            raise ConfigError(f"placement.{role}: there is no such role under `models:`; {did_you_mean(role, models)}")
        seat = _seat(value, f"placement.{role}")
        first, known = found.setdefault(target(role), (role, seat))
        if known != seat:
            raise ConfigError(
                f"placement.{first} and placement.{role} differ ({_shown(known)}; {_shown(seat)}), and both roles are played by the model of "
                f"{target(role)!r}; place it once"
            )
    return {role: seat for role, (_, seat) in found.items()}


def _seat(raw: Any, where: str) -> Seat:
    known = {field.name for field in fields(Seat)}
    given = {"device": raw} if isinstance(raw, str) else raw
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{where} is {raw!r:.80}; give a device ({_DEVICE_WORDS}) or settings, `{{…}}`, with {', '.join(sorted(known))}")
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{where}.{key}: there is no setting {key!r} here; {did_you_mean(str(key), known)}")
        if not isinstance(value, int if key == "port" else str) or isinstance(value, bool):
            raise ConfigError(f"{where}.{key} is {value!r:.80}; it must be {'a whole number' if key == 'port' else 'text'}")
    for key in ("device", "server"):
        value = given.get(key)
        if value is not None and not _DEVICE.fullmatch(value) and not _DEVICES.fullmatch(value):
            hint = "; an address goes under `host`" if "/" in value else ""
            raise ConfigError(f"{where} is {value!r}; allowed: {_DEVICE_WORDS}, of a server also several, cuda:0,1{hint}")
    return Seat(**given)


def _shown(seat: Seat) -> str:
    return ", ".join(f"{field.name}: {value}" for field in fields(Seat) if (value := getattr(seat, field.name)) is not None)


# ── what it means for a model ──────────────────────────────────────────────────────────────────────────────────────────
def placed(role: Role, raw: Any, seat: Seat, place: Place, machine: Mapping[str, Any]) -> tuple[Any, Given]:
    """The model's settings and what its surroundings provide, with its seat. Raises `ConfigError` for a seat it cannot take."""
    settings = {"use": raw} if isinstance(raw, str) else dict(raw)
    takes = _takes(settings, place)
    server, endpoint, local = "command" in takes, "url" in takes, "machine" in takes
    allowed = {"device", "server", "host", "port"} if server else {"host"} if endpoint else {"device"} if local else set()
    for field in fields(Seat):
        if getattr(seat, field.name) is not None and field.name not in allowed:
            sort = "is an endpoint" if endpoint else "runs in this process" if local else "has no device"
            can = f"; it can be given {', '.join(sorted(allowed))}" if allowed else ""
            raise ConfigError(f"placement.{role}.{field.name} is {getattr(seat, field.name)!r}, and {settings.get('use')!r} {sort}{can}")
    if endpoint:
        return {**settings, "url": seat.host}, {}
    if not server and not _DEVICE.fullmatch(seat.device or "auto"):
        raise ConfigError(f"placement.{role} is {seat.device!r}; a model in this process computes on one device ({_DEVICE_WORDS})")
    given: dict[str, Planned] = {}
    if seat.own_device is not None:
        settings = _on_device(role, settings, seat.own_device)
        given["machine"] = bind_call(Machine, {**machine, "device": seat.own_device}, Place("placement", place.base), {}, "the machine")
    if server:
        if "place" in settings:
            raise ConfigError(f"placement.{role} and {place.path}.place both say where the server runs; say it once")
        given["place"] = _server_place(seat)
    return settings, given


def _takes(settings: Mapping[str, Any], place: Place) -> set[str]:
    target = find.find(str(settings.get("use")), find.MODEL, f"{place.path}.use", place.base)
    return set(parameters(target)) if inspect.isclass(target) or inspect.isroutine(target) else set()


def _on_device(role: Role, settings: dict[str, Any], device: str) -> dict[str, Any]:
    own = settings.get("machine")
    if not isinstance(own, Mapping):
        return settings
    if own.get("device", "auto") not in ("auto", device):
        raise ConfigError(f"placement.{role} is {device!r}, and models.{role}.machine.device {own['device']!r}; say it once")
    return {**settings, "machine": {**own, "device": device}}


def _server_place(seat: Seat) -> Planned:
    devices = seat.server or seat.device or ""
    more = {name: value for name, value in (("host", seat.host), ("port", seat.port)) if value is not None}
    made = ServerPlace("" if devices in ("auto", "cuda") else devices, **more)  # type: ignore[arg-type]
    return Planned(None, lambda: made)


# ── what this machine has ──────────────────────────────────────────────────────────────────────────────────────────────
def refuse_absent(role: Role, seat: Seat, model: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a device that this machine does not have. `model`: its resolved settings."""
    server = seat.server or seat.device if "command" in model else None
    own = None if "command" in model and model.get("model") is None else seat.own_device
    for device, by_torch in ((own, True), (server, False)):
        if device is None or device in ("auto", "cpu"):
            continue
        there, said = _seen(device.partition(":")[0], by_torch=by_torch)
        wanted = [int(number) for number in re.findall(r"\d+", device)] or [0]
        if max(wanted) >= there:
            raise ConfigError(f"placement.{role} is {device!r}, and {said}; place it on a device that is there, or on auto")


def _seen(kind: str, *, by_torch: bool) -> tuple[int, str]:
    """How many devices of a kind there are, and who says so. A server may bring a torch of its own: the system's devices count too."""
    try:
        import torch
    except ImportError:
        counted, said = 0, "torch is not installed"
    else:
        counted = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
        kinds = f"{counted} {kind} device{'s' * (counted != 1)}" if counted else f"no {kind} device"
        said = f"torch {torch.__version__} sees {kinds} here"
    if not by_torch and kind == "cuda":
        system = len(list(Path("/dev").glob("nvidia[0-9]*")))
        return max(counted, system), f"{said}, and the system {system or 'none'}"
    return counted, said
