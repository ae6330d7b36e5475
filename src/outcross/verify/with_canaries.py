"""A verifier with answers of known verdict that its user declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from outcross.errors import ConfigError
from outcross.stages import Context, Role, Stage, Verifier, name_of, roles_of, version_of
from outcross.types import Canary, Ground, Group


@dataclass(frozen=True)
class WithCanaries(Stage):
    """`verifier` as it is, tried on `canaries` before every batch, beside those that it declares itself: for verifiers whose right and wrong
    answers only their user knows, a pattern, a schema, a judge with principles of one's own.

    canaries: for example `[{task: {id: sum, prompt: "2+2=", answer: "4"}, answers: ["4", "5"], expected: [pass, fail]}]`. `columns` of the
        task are pairs, `[[test, "assert f(1) == 2"]]`. Identifiers tell them apart.
    """

    verifier: Verifier
    canaries: tuple[Canary, ...]

    def __post_init__(self) -> None:
        names = [canary.task.id for canary in self.canaries]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None or not names:
            told = f"two canaries are called {doubled!r}; give each an id" if names else "canaries is empty; declare one, or leave this out"
            raise ConfigError(f"with_canaries: {told}")

    @property
    def name(self) -> str:
        return name_of(self.verifier)

    @property
    def version(self) -> str:  # type: ignore[override]
        return version_of(self.verifier)

    @property
    def ground(self) -> Ground:
        return self.verifier.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return roles_of(self.verifier)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """Those of the verifier. Its canaries come on top, once a batch."""
        return self.verifier.calls(tasks)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self.verifier(ctx, groups)
