"""What went wrong with an exchange, and what that means for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec

from outcross.models.http_endpoint import Endpoint

ERROR_BYTES = 64_000  # read of an error's body
_SHOWN = 300  # characters of a server's message on the record


@dataclass(frozen=True)
class Trouble:
    """throttled: ask later, spending no retry. failed, hung: spend one. refused: leave `field` out. fatal: asking again is useless.

    `wait`: the seconds that the server asked for, if it did.
    """

    kind: Literal["throttled", "failed", "hung", "refused", "fatal"]
    reason: str
    wait: float | None = None
    field: str = ""


def of_status(status: int, headers: Mapping[str, str], raw: bytes, endpoint: Endpoint) -> Trouble:
    """The trouble that an HTTP status other than 200 means."""
    said, code = _message(raw)
    reason = f"{endpoint.shown} answered {status}: {said}"
    if status == 429 and code == "insufficient_quota":
        return Trouble("fatal", reason)
    if status in (429, 503, 529):
        return Trouble("throttled", reason, retry_after(headers))
    if status >= 500 or status in (408, 409, 425):
        return Trouble("failed", reason)
    if status in (401, 403):
        return Trouble("fatal", f"{reason}; is the key in the environment variable {endpoint.key_env}?")
    if status == 404:
        return Trouble("fatal", f"{reason}; check the url and the model's name")
    if 300 <= status < 400:
        return Trouble("fatal", f"{endpoint.shown} answered {status} and points elsewhere; keys are not sent on: use the right url")
    if status in (400, 422):
        if "max_completion_tokens" in said:
            return Trouble("refused", reason, field="max_tokens")
        for name in ("seed", "n"):
            if re.search(rf"\b{name}\b", said):
                return Trouble("refused", reason, field=name)
    return Trouble("fatal", reason)


def of_exception(error: Exception, endpoint: Endpoint, deadline_s: float) -> Trouble:
    """The trouble that an exception of the transport means."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Trouble(
            "fatal",
            f"{endpoint.shown} has no certificate that this machine trusts ({error}); name its authority by ca_file or SSL_CERT_FILE",
        )
    if isinstance(error, TimeoutError):
        return Trouble("hung", f"{endpoint.shown} did not answer within {deadline_s:g} s")
    if isinstance(error, aiohttp.InvalidURL):
        return Trouble("fatal", f"{endpoint.shown} is no url that can be asked: {error}")
    return Trouble("failed", f"{endpoint.shown}: {type(error).__name__}: {error}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `Retry-After` asks for. A date is read against the server's own `Date`: our clock may be wrong, or jump."""
    value = headers.get("retry-after-ms", "")
    if value.replace(".", "", 1).isdigit():
        return float(value) / 1000
    value = headers.get("Retry-After", "").strip()
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds())
    except (TypeError, ValueError):
        return None


def _message(raw: bytes) -> tuple[str, str]:
    """A server's message and error code, from the shapes that servers use."""
    try:
        found: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw[:_SHOWN].decode(errors="replace").strip() or "nothing", ""
    for key in ("error", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
            break
    if isinstance(found, dict) and "message" in found:
        return str(found["message"])[:_SHOWN], str(found.get("code") or "")
    return str(found)[:_SHOWN], ""
