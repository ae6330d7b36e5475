"""One endpoint in use: where requests to it go, through which proxy, whom it is trusted by, and what may not be written down."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from outcross.errors import ConfigError
from outcross.models.http_endpoint import SECRET_LENGTH, Api, Endpoint
from outcross.models.http_pace import Pace


@dataclass(eq=False)
class Server:
    """`refused`: optional fields that it does not take. `trust`: True where nothing is encrypted."""

    endpoint: Endpoint
    address: str
    model: str
    headers: dict[str, str]
    secrets: tuple[bytes, ...]
    pace: Pace
    proxy: str | None
    trust: ssl.SSLContext | bool
    refused: set[str] = field(default_factory=set)
    trouble: str = ""  # the last failure

    @property
    def load(self) -> float:
        return (self.pace.in_flight + 1) / self.endpoint.weight

    def hide(self, raw: bytes) -> bytes:
        """`raw` without keys: servers quote them."""
        for secret in self.secrets:
            raw = raw.replace(secret, b"[secret]")
        return raw


def serve(endpoint: Endpoint, model: str, api: Api, most: int) -> Server:
    """Raises `ConfigError` for a header, a proxy or a `ca_file` that cannot be used."""
    address = endpoint.address(api)
    proxy = _proxy(address)
    secrets = [*endpoint.secrets(), *_of_proxy(proxy)]
    slashes = ("/", "\\/", "\\\\/")  # as they are, in JSON, and in JSON that stands in JSON
    written = dict.fromkeys(secret.replace("/", slash).encode() for slash in slashes for secret in secrets)
    return Server(endpoint, address, endpoint.model or model, endpoint.headers(), tuple(written), Pace(most), proxy, _trust(endpoint))


def _proxy(address: str) -> str | None:
    """The proxy that the environment names for an address; none for this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host):
        return None
    found = getproxies().get(parts.scheme)
    if not found or proxy_bypass(host):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigError(
            f"{parts.scheme.upper()}_PROXY names a proxy of the kind {urlsplit(proxy).scheme!r}; only http and https proxies can be used: "
            f"set another one, or put {host} into NO_PROXY"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_proxy(proxy: str | None) -> tuple[str, ...]:
    password = urlsplit(proxy).password if proxy else None
    return tuple(item for item in {password, unquote(password)} if len(item) >= SECRET_LENGTH) if password else ()


def _trust(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if urlsplit(endpoint.url).scheme != "https":
        return True
    context = ssl.create_default_context()
    if endpoint.ca_file is not None:
        try:
            context.load_verify_locations(endpoint.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file is {str(endpoint.ca_file)!r}, which cannot be read as certificates in PEM form: {error}") from None
    return context
