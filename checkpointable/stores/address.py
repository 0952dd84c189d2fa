"""Addresses of places in object stores, with options but never with credentials."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from checkpointable.errors import StoreError

if TYPE_CHECKING:
    from checkpointable.stores.object.store import ObjectStore

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "https")
"""The schemes of obstore, except for directories and memory, which have stores of our own."""

_CLIENT = (
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type",
    "http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle", "http2_only", "pool_idle_timeout", "pool_max_idle_per_host",
    "proxy_url", "proxy_excludes", "randomize_addresses", "read_timeout", "root_certificate",
    "timeout", "user_agent",
)  # fmt: skip
_SECRET = re.compile(r"secret|key|token|password|sas|signature|credential|authority", re.I)
_NO_SECRET = re.compile(r"(aws_)?(skip_signature|sse_kms_key_id|sse_bucket_key_enabled)", re.I)
_ENDPOINT = re.compile(r"(aws_|azure_(storage_)?)?endpoint(_url)?", re.I)
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def object_store(url: str) -> "ObjectStore":
    """Open the place at an address: `s3://bucket/prefix?endpoint=http://...`, `gs://`, `az://`.

    The options are obstore's, under its names: those of the service (`region`, `endpoint`, ...), of
    the client (`timeout`, ...), and for retries (`max_retries`, `retry_timeout`). The defaults come
    from the environment, as credentials always do. Raises `StoreError`.
    """
    try:
        import obstore  # here: an extra, which takes a while
        from obstore.exceptions import BaseError
    except ModuleNotFoundError:
        hint = "pip install 'checkpointable[object]'"
        raise StoreError("object stores need obstore", where=redacted(url), hint=hint) from None
    from checkpointable.stores.object.store import ObjectStore

    config, client, retry = _options(url)
    place = url.partition("?")[0].rstrip("/")
    try:
        remote = obstore.store.from_url(
            place, config=config, client_options=client, retry_config=retry
        )
    except (BaseError, ValueError, TypeError, OverflowError) as error:
        what = str(error).partition("\n")[0].replace(url, redacted(url))
        raise StoreError(what, where=redacted(url), hint="see docs/object-stores.md") from None
    return ObjectStore(remote, address=redacted(url))


def redacted(url: str) -> str:
    """An address without credentials, and without options other than the endpoint.

    >>> redacted("s3://id:word@bucket/a?endpoint=http://localhost:8333&region=eu")
    's3://bucket/a?endpoint=http://localhost:8333'
    """
    place, _, query = url.partition("#")[0].partition("?")
    scheme, _, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    ends = [
        f"?endpoint={re.sub(r'//[^/]*@', '//', value).partition('?')[0]}"
        for name, value in parse_qsl(query)
        if _ENDPOINT.fullmatch(name)
    ]
    path = f"{host.rpartition('@')[2]}{slash}{path}".rstrip("/")
    return "".join([f"{scheme}://{path}", *ends[:1]])


def _options(url: str) -> tuple[Any, Any, Any]:
    """Split the options of an address into those of the service, the client and the retries."""
    config: dict[str, str] = {}
    client: dict[str, str] = {}
    retry: dict[str, int | timedelta] = {}

    def refuse(what: str, hint: str) -> StoreError:
        return StoreError(what, where=redacted(url), hint=hint)

    parts = urlsplit(url)
    secret = parts.username is not None and parts.scheme not in ("abfs", "abfss")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        secret |= bool(_SECRET.search(name) and not _NO_SECRET.fullmatch(name)) or "@" in value
        if name in (*config, *client, *retry):
            raise refuse(f"the option {name!r} is given twice", "give it once")
        if name in _CLIENT:
            client[name] = value
        elif name == "max_retries" and value.isdecimal():
            retry[name] = int(value)
        elif name == "retry_timeout" and (match := _DURATION.fullmatch(value)):
            retry[name] = timedelta(seconds=float(match[1]) * _SECONDS[match[2] or ""])
        elif name in ("max_retries", "retry_timeout"):
            raise refuse(f"{name}={value}", "give a number, and a time as 30s")
        else:
            config[name] = value
            if _ENDPOINT.fullmatch(name) and value.startswith("http://"):
                client.setdefault("allow_http", "true")
    if secret:
        hint = (
            "addresses are shown and logged: set the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, ...), or give ObjectStore(obstore.store.S3Store(...))"
        )
        raise refuse("an address must not hold credentials", hint)
    if parts.fragment or not parts.netloc:
        raise refuse("not an address of a bucket", 'as "s3://bucket/prefix?region=eu-central-1"')
    return config, client, retry
