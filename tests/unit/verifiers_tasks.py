"""Tasks of the package verifiers (v1), as its users write them."""

from __future__ import annotations

from typing import Any

import verifiers.v1 as vf


class Data(vf.TaskData):
    answer: str = ""
    level: int = 0


class Sum(vf.Task[Data, vf.State]):
    @vf.reward(weight=2.0)
    async def right(self, trace: Any) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward
    async def small(self, task: Data, trace: Any) -> dict[str, float]:
        return {"short": 0.5 if len(trace.last_reply) < 3 else 0.0}

    @vf.metric
    async def level(self, trace: Any) -> float:
        return float(self.data.level)


class Boxed(Sum):
    @vf.reward
    async def built(self, runtime: Any) -> float:
        return 1.0


class Nothing(vf.Task[Data, vf.State]):
    pass
