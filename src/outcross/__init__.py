"""Train models on their own output without collapse.

    import outcross
    run = outcross.run(recipe, models={"policy": model}, out="runs/first")     # or outcross.run("run.yaml")
    run.summary, run.rounds, run.champion, run.table("groups", round=0)

Names are loaded on first use: importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outcross.api import Run as Run
    from outcross.api import open as open
    from outcross.api import run as run
    from outcross.engine.budget import Budget as Budget
    from outcross.errors import OutcrossError as OutcrossError
    from outcross.recipe import (
        Bench as Bench,
    )
    from outcross.recipe import (
        Learn as Learn,
    )
    from outcross.recipe import (
        Mixture as Mixture,
    )
    from outcross.recipe import (
        Phase as Phase,
    )
    from outcross.recipe import (
        Recipe as Recipe,
    )
    from outcross.recipe import (
        Waived as Waived,
    )
    from outcross.recipe import (
        fingerprint as fingerprint,
    )
    from outcross.select import All as All
    from outcross.select import Parts as Parts
    from outcross.stages import Ask as Ask
    from outcross.stages import Context as Context
    from outcross.stages import Dialogue as Dialogue
    from outcross.stages import FitPlan as FitPlan
    from outcross.stages import Stage as Stage
    from outcross.types import (
        Canary as Canary,
    )
    from outcross.types import (
        Comparison as Comparison,
    )
    from outcross.types import (
        Completion as Completion,
    )
    from outcross.types import (
        Decision as Decision,
    )
    from outcross.types import (
        Drop as Drop,
    )
    from outcross.types import (
        Example as Example,
    )
    from outcross.types import (
        Group as Group,
    )
    from outcross.types import (
        Loss as Loss,
    )
    from outcross.types import (
        Measurement as Measurement,
    )
    from outcross.types import (
        Message as Message,
    )
    from outcross.types import (
        Origin as Origin,
    )
    from outcross.types import (
        Request as Request,
    )
    from outcross.types import (
        Response as Response,
    )
    from outcross.types import (
        Sample as Sample,
    )
    from outcross.types import (
        Sampling as Sampling,
    )
    from outcross.types import (
        Score as Score,
    )
    from outcross.types import (
        Task as Task,
    )
    from outcross.types import (
        Turn as Turn,
    )

_HOMES = {
    "outcross.api": ("Run", "open", "run"),
    "outcross.engine.budget": ("Budget",),
    "outcross.errors": ("OutcrossError",),
    "outcross.recipe": ("Bench", "Learn", "Mixture", "Phase", "Recipe", "Waived", "fingerprint"),
    "outcross.select": ("All", "Parts"),
    "outcross.stages": ("Ask", "Context", "Dialogue", "FitPlan", "Stage"),
    "outcross.types": (
        "Canary",
        "Comparison",
        "Completion",
        "Decision",
        "Drop",
        "Example",
        "Group",
        "Loss",
        "Measurement",
        "Message",
        "Origin",
        "Request",
        "Response",
        "Sample",
        "Sampling",
        "Score",
        "Task",
        "Turn",
    ),
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'outcross' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
