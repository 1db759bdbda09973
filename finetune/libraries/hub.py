"""The hub, and whether an error of its client says that it cannot be reached."""

from collections.abc import Iterator
from urllib.parse import urlsplit

_OF_NO_CONNECTION = {
    "ConnectError", "ConnectTimeout", "ConnectionError", "MaxRetryError", "NameResolutionError", "NewConnectionError",
    "ProxyError", "gaierror",
}  # fmt: skip
"""Classes of errors by their names: the HTTP library below the client is another one in other versions."""


def unreachable(error: BaseException) -> str | None:
    """Return that the hub cannot be reached, with its host, if an error or what caused it says so; else None."""
    if any(_OF_NO_CONNECTION & {each.__name__ for each in type(cause).__mro__} for cause in _chain(error)):
        from huggingface_hub.constants import ENDPOINT

        return f"{urlsplit(ENDPOINT).netloc} cannot be reached"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    below: BaseException | None = error
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        yield below
        below = below.__cause__ or below.__context__
