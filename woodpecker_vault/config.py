"""Settings: one TOML file, any key from the environment instead, Vault's own variables for what is not set.

All that is wrong is said at once, one line each, before anything starts. Nothing here uses the settings.
"""

import copy
import json
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from woodpecker_vault.paths import Template, mount_path
from woodpecker_vault.signature import load_public_key
from woodpecker_vault.tls import authority_files, load_pair
from woodpecker_vault.vault.files import File, shown, without_line_break
from woodpecker_vault.vault.logins import LOGINS, Login
from woodpecker_vault.woodpecker import EVENTS, PULL_REQUEST_EVENTS

_PREFIX = "WOODPECKER_VAULT_"

_VAULT_VARIABLES = {
    "ADDR": "address",
    "NAMESPACE": "namespace",
    "CACERT": "ca_cert",
    "CAPATH": "ca_path",
    "CLIENT_CERT": "client_cert",
    "CLIENT_KEY": "client_key",
    "TLS_SERVER_NAME": "tls_server_name",
    "SKIP_VERIFY": "skip_verify",
    "CLIENT_TIMEOUT": "timeout",
    "MAX_RETRIES": "max_retries",
    "PROXY_ADDR": "proxy",
    "HTTP_PROXY": "proxy",
}
"""Suffixes after ``VAULT_`` and ``BAO_``; of two for the same setting, the first goes before."""


_METHODS = [login.model_fields["method"].default for login in LOGINS]


class ConfigError(Exception):
    """What is wrong with the settings, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _base_path(text: str) -> str:
    segments = text.split("/")[1:]
    if text and (not re.fullmatch(r"(/[\w.~-]+)+", text, re.ASCII) or {".", ".."} & set(segments)):
        raise ValueError(
            'must be empty, or like "/extension-3f9c": a slash before each part, of letters, digits and -._~'
        )
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not text.isprintable() or parts.query or parts.fragment:
        raise ValueError('must be like "https://host:port"')
    return text.rstrip("/")


def _url_or_none(text: str) -> str:
    return _url(text) if text else text


def _joined(value: object) -> object:
    """Several addresses, as a list, are kept with commas between, as they are in the environment."""
    return ",".join(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def _addresses(text: str) -> str:
    return ",".join(_address(address.strip()) for address in text.split(","))


def _address(text: str) -> str:
    """A URL, or a Unix socket as Vault's own tools write it."""
    if not text.startswith("unix:"):
        return _url(text)
    if not text.removeprefix("unix://").startswith("/") or text.endswith("/") or not text.isprintable():
        raise ValueError('must be like "unix:///run/vault/agent.sock", or "https://host:port"')
    return text


def _pem(text: str) -> str:
    load_public_key(text)
    return text


def _key_file(path: str) -> str:
    try:
        load_public_key(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{shown(path)}{error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{shown(path)}{error}") from None
    return path


def _authority(path: str) -> str:
    _check_authorities(path, "")
    return path


def _authorities(path: str) -> str:
    _check_authorities("", path)
    return path


def _check_authorities(file: str, folder: str) -> None:
    try:
        for authority in authority_files(file, folder):
            ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(file or folder)}{_tls_trouble(error)}") from None


def _check_pair(context: ssl.SSLContext, certificate: str, key: str, name: str) -> None:
    try:
        load_pair(context, certificate, key)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} and its key cannot be used: {_tls_trouble(error)}") from None


def _tls_trouble(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "no PEM certificate, or a key that is not the one of the certificate"
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    return "the private key is encrypted" if "encrypted" in str(error) else "not a path"


def _mount(text: str) -> str:
    return mount_path(text, "a KV v2 secrets engine, as `vault secrets list` shows it")


def _layer(text: str) -> str:
    Template.compile(text)
    return text


def _repo_folder(text: str) -> str:
    template = Template.compile(text, frozenset({"repo_id"}))
    if not template.is_folder or "repo_id" not in template.names:
        raise ValueError("must hold {repo_id} and end with /")
    return text


def _event(text: str) -> str:
    if text not in EVENTS:
        raise ValueError(f"unknown event; Woodpecker knows {', '.join(EVENTS)}")
    return text


def _array(value: object) -> object:
    """A list out of the environment is a JSON array."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('must be a JSON array in the environment, like ["one", "two"]') from None
    return value


Array = BeforeValidator(_array)
Seconds = Annotated[float, Field(gt=0, le=3600)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Server(_Section):
    """``[server]``: how this service is reached."""

    host: str = "0.0.0.0"  # noqa: S104 - a server in a container
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    base_path: Annotated[str, AfterValidator(_base_path)] = ""
    proxy_strips_base_path: bool = False
    tls_cert: File = ""
    tls_key: File = ""
    request_timeout: Seconds = 8.0
    max_body_bytes: Annotated[int, Field(gt=0)] = 16 * 1024 * 1024

    @model_validator(mode="after")
    def _tls_whole(self) -> "Server":
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_cert:
            _check_pair(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), self.tls_cert, self.tls_key, "tls_cert")
        return self


class Woodpecker(_Section):
    """``[woodpecker]``: who may ask."""

    public_key_files: Annotated[list[Annotated[str, AfterValidator(_key_file)]], Array] = []
    public_keys: Annotated[list[Annotated[str, AfterValidator(_pem)]], Array] = []
    server_url: Annotated[str, AfterValidator(_url_or_none)] = ""
    token_file: File = ""
    ca_cert: Annotated[str, AfterValidator(_authority)] = ""
    max_age: Seconds = 15.0
    max_clock_skew: Annotated[float, Field(ge=0, le=3600)] = 5.0

    @model_validator(mode="after")
    def _some_key(self) -> "Woodpecker":
        if not (self.public_key_files or self.public_keys or self.server_url):
            raise ValueError("no public key: set public_key_files, public_keys or server_url")
        return self


class Cache(_Section):
    """``[vault.cache]``: whether, and for how long, answers stay in memory."""

    mode: Literal["off", "validated", "ttl"] = "off"
    ttl: Seconds = 60.0
    stale_if_error: Annotated[float, Field(ge=0, le=86400)] = 0.0
    max_bytes: Annotated[int, Field(gt=0)] = 16 * 1024 * 1024

    @model_validator(mode="after")
    def _something_to_give(self) -> "Cache":
        if self.stale_if_error and self.mode == "off":
            raise ValueError('stale_if_error needs mode = "validated" or "ttl": without, nothing is kept')
        return self


class Vault(_Section):
    """``[vault]``: where Vault is."""

    address: Annotated[str, AfterValidator(_addresses), BeforeValidator(_joined)]
    namespace: str = ""
    ca_cert: Annotated[str, AfterValidator(_authority)] = ""
    ca_path: Annotated[str, AfterValidator(_authorities)] = ""
    client_cert: File = ""
    client_key: File = ""
    tls_server_name: str = ""
    skip_verify: bool = False
    timeout: Seconds = 3.0
    max_connections: Annotated[int, Field(gt=0)] = 32
    max_retries: Annotated[int, Field(ge=0)] = 8
    follow_redirects: bool = True
    proxy: Annotated[str, AfterValidator(_url_or_none)] = ""
    cache: Cache = Cache()
    auth: Login

    @model_validator(mode="after")
    def _tls_usable(self) -> "Vault":
        if self.client_key and not self.client_cert:
            raise ValueError("client_key is set, but client_cert is not")
        if self.client_cert:
            _check_pair(ssl.create_default_context(), self.client_cert, self.client_key, "client_cert")
        return self

    @model_validator(mode="after")
    def _certificate_to_log_in_with(self) -> "Vault":
        if self.auth.method == "cert":
            if not self.client_cert:
                raise ValueError('auth.method = "cert" needs a client_cert')
            if not all(address.startswith("https:") for address in self.address.split(",")):
                raise ValueError('auth.method = "cert" needs an address with https')
        return self


class Secrets(_Section):
    """``[secrets]``: where in Vault they are, and what holds where an entry does not say."""

    mount: Annotated[str, AfterValidator(_mount)] = "secret"
    repo: Annotated[str, AfterValidator(_repo_folder)] = "woodpecker/repo/{repo_id}/"
    alpha: Literal["off", "read", "write"] = "write"
    layers: Annotated[list[Annotated[str, AfterValidator(_layer)]], Array] = [
        "woodpecker/global/",
        "woodpecker/org/{org_id}/",
        "woodpecker/repo/{repo_id}/",
    ]
    default_events: Annotated[list[Annotated[str, AfterValidator(_event)]], Field(min_length=1), Array] = [
        event for event in EVENTS if event not in PULL_REQUEST_EVENTS
    ]
    forks: Literal["allow", "deny"] = "deny"
    delete: Literal["soft", "destroy"] = "soft"


class Log(_Section):
    """``[log]``: what is said, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(_Section):
    """All settings."""

    server: Server = Server()
    woodpecker: Woodpecker
    vault: Vault
    secrets: Secrets = Secrets()
    log: Log = Log()


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings: from the environment, then the file, then Vault's own variables.

    Args:
        file: the TOML file, if there is one.
        environment: the process's environment.

    Raises:
        ConfigError: something in them is wrong.
    """
    return check(_read(file) if file else {}, environment)


def check(document: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The same for what is in the file already: its tables."""
    document = {"woodpecker": {}, "vault": {}} | copy.deepcopy(dict(document))
    _put_own_variables(document, environment)
    _put_vault_variables(document, environment)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        lines = [_line(problem) for problem in error.errors(include_url=False, include_input=False)]
        raise ConfigError(lines) from None


def differing(one: BaseModel, other: BaseModel, *above: str) -> list[str]:
    """The settings in which two differ, by name: ``["[vault] timeout"]``."""
    if type(one) is not type(other):
        return [f"[{'.'.join(above)}]"]
    found = []
    for key in type(one).model_fields:
        mine, others = getattr(one, key), getattr(other, key)
        if isinstance(mine, BaseModel) and isinstance(others, BaseModel):
            found += differing(mine, others, *above, key)
        elif mine != others:
            found.append(f"[{'.'.join(above)}] {key}")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: {error}"]) from None


def _put_own_variables(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    """``WOODPECKER_VAULT_SERVER__PORT=9000`` is ``port`` in ``[server]``.

    Only names with a double underscore are ours: Kubernetes sets ``WOODPECKER_VAULT_PORT`` and the like by itself
    where a service is called ``woodpecker-vault``.
    """
    for variable, value in sorted(environment.items()):
        *sections, key = variable.removeprefix(_PREFIX).lower().split("__")
        if variable.startswith(_PREFIX) and sections:
            _put(document, sections, key, without_line_break(value))


def _put_vault_variables(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    """What Vault's own tools read fills in what is not set; ``BAO_ADDR`` goes before ``VAULT_ADDR``, as in OpenBao."""
    vault = document["vault"]
    if not isinstance(vault, dict):
        return
    if vault.get("address") == "":
        del vault["address"]
    for suffix, key in _VAULT_VARIABLES.items():
        value = _variable(environment, suffix)
        if value and vault.get(key, "") == "":
            vault[key] = _seconds(value) if suffix == "CLIENT_TIMEOUT" else value
    if _variable(environment, "DISABLE_REDIRECTS").lower() in {"1", "t", "true"}:
        vault.setdefault("follow_redirects", False)
    auth = vault.setdefault("auth", {})
    if not isinstance(auth, dict) or auth.setdefault("method", "token") != "token":
        return
    if auth.get("token") or auth.get("token_file"):
        return
    remembered = Path(environment.get("HOME") or "/nowhere", ".vault-token")
    if token := _variable(environment, "TOKEN").strip():
        auth["token"] = token
    elif remembered.is_file():
        auth["token_file"] = str(remembered)


def _variable(environment: Mapping[str, str], suffix: str) -> str:
    values = (without_line_break(environment.get(f"{prefix}_{suffix}", "")) for prefix in ("BAO", "VAULT"))
    return next(filter(None, values), "")


def _seconds(text: str) -> object:
    """A duration as Vault's tools write it: ``60``, ``1m30s``, ``500ms``; anything else as it is."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        return text
    try:
        return sum(float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
    except ValueError:
        return text


def _put(document: dict[str, Any], sections: Sequence[str], key: str, value: str) -> None:
    table = document
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            table[f"{section}.{key}"] = value  # there is a value where a table should be; validation will name both
            return
        table = inner
    table[key] = value


def _line(problem: ErrorDetails) -> str:
    parts = [str(part) for part in problem["loc"]]
    if parts[:2] == ["vault", "auth"]:
        return _auth_line(problem, parts[2:])
    *sections, key = parts
    where = f"[{'.'.join(sections)}] {key}" if sections else f"[{key}]"
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: there is no such setting"
        case "missing" if where == "[vault] address":
            return f"{where}: set it, or VAULT_ADDR in the environment"
        case _:
            return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def _auth_line(problem: ErrorDetails, parts: Sequence[str]) -> str:
    """A line about ``[vault.auth]``; its parts begin with the method, as each has settings of its own."""
    if problem["type"] == "union_tag_invalid":
        return f"[vault.auth] method: unknown method; there are {', '.join(_METHODS)}"
    method, key = parts[0] if parts else "", parts[1] if len(parts) > 1 else ""
    where = f"[vault.auth] {key}" if key else "[vault.auth]"
    match problem["type"]:
        case "extra_forbidden":
            others = [name for name, login in zip(_METHODS, LOGINS, strict=True) if key in login.model_fields]
            also = f", only with {', '.join(others)}" if others else ""
            return f'{where}: there is no such setting with method = "{method}"{also}'
        case "missing":
            return f'{where}: set it, as method = "{method}" needs it'
        case _:
            return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
