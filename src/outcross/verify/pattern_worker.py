"""The process in which regular expressions run, since nothing else can stop one that backtracks for ever."""

from __future__ import annotations

import re

from outcross.verify.each import PASS, Finding
from outcross.verify.worker import Judge, serve


def judge(pattern: str, where: str, answer: str) -> Finding:
    """Whether `pattern` matches the whole answer or some part of it."""
    try:
        expression = re.compile(pattern)  # which keeps the last few hundred
    except (re.error, RecursionError, OverflowError) as error:
        return "error", "the task's pattern is not a regular expression", str(error)[:200]
    said = answer.strip()
    found = expression.fullmatch(said) if where == "whole" else expression.search(said)
    return PASS if found else ("fail", "the pattern does not match", said[-200:])


def prepare(settings: None) -> Judge:
    """Nothing to prepare."""
    return judge


if __name__ == "__main__":
    serve(prepare)
