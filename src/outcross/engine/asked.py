"""The models that a stream of dialogues asks, by role."""

from __future__ import annotations

from dataclasses import dataclass

from outcross.errors import ConfigError
from outcross.stages import Completes, Context, Remote
from outcross.types import Request


@dataclass(frozen=True)
class Asked:
    """A model that is asked, with what enters its keys."""

    model: Completes
    id: str
    version: str
    remote: bool

    def splits(self, request: Request) -> bool:
        """Whether the server gives one completion at a time, as far as it is known."""
        return isinstance(self.model, Remote) and bool(self.model.split(request))


class Models:
    """The models that one stream of dialogues has asked, by role."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self.label = ctx, ctx.round
        self._found: dict[str, Asked] = {}
        self.remote = False

    def of(self, role: str) -> Asked:
        found = self._found.get(role)
        if found is None:
            model = self._ctx.model(role)
            if not isinstance(model, Completes):
                raise ConfigError(
                    f"the model in role {role!r} ({type(model).__name__}) cannot answer requests; it needs submit() and flush()"
                )
            found = self._found[role] = Asked(model, model.id, getattr(model, "client_version", ""), isinstance(model, Remote))
            self.remote |= found.remote
        return found

    def flush(self) -> None:
        for asked in self._found.values():
            asked.model.flush()
