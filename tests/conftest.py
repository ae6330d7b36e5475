"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def listen_to_ctrl_c() -> Iterator[None]:
    """A shell starts background jobs deaf to SIGINT, and their children inherit that; the tests of Ctrl-C need ears."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
