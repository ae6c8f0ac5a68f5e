"""Settings: where each comes from, and what is said about wrong ones."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, SecretStr

from tests import models
from tests.servers import toml
from woodpecker_vault.cli.stand_in import private_pem, public_pem
from woodpecker_vault.config import ConfigError, Settings, check, differing, load
from woodpecker_vault.vault.connection import Connection, tls_context
from woodpecker_vault.vault.logins import LOGINS
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.logins.token import Token
from woodpecker_vault.vault.logins.userpass import Userpass

NO_CHOICE = ("vault", "auth", "mount")
"""Tokens are at one place; other methods have this setting."""

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"
KEY = Ed25519PrivateKey.generate()
PEM = public_pem(KEY)
METHODS = {login.model_fields["method"].default: login for login in LOGINS}
RSA_PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority, a folder of such, and a client's certificate and key."""
    authority = trustme.CA()
    client = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "authorities").mkdir()
    authority.cert_pem.write_to_path(tmp_path / "authorities" / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client-both.pem")
    return tmp_path


def document(**sections: Any) -> dict[str, Any]:
    """The least that is needed, with these tables merged in; what is no table takes the table's place."""
    least: dict[str, Any] = {
        "woodpecker": {"public_keys": [PEM]},
        "vault": {"address": "http://vault.example:8200", "auth": {"token": "hvs.the-token"}},
    }
    return merged(least, sections)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for key, value in other.items():
        here = both.get(key)
        both[key] = merged(here, value) if isinstance(here, dict) and isinstance(value, dict) else value
    return both


def problems(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> list[str]:
    """What is said about these settings; they must be wrong, and every line must be one."""
    with pytest.raises(ConfigError) as caught:
        check(given, environment or {})
    assert str(caught.value) == "\n".join(caught.value.lines)
    for line in caught.value.lines:
        assert line.isprintable(), line
    return caught.value.lines


def leaves(model: type[BaseModel], *above: str) -> Iterator[tuple[str, ...]]:
    """Every setting's table and key; where a table may be one of several, those of the first."""
    for name, field in model.model_fields.items():
        if inner := models(field.annotation):
            yield from leaves(inner[0], *above, name)
        elif (*above, name) != NO_CHOICE:
            yield (*above, name)


def defaults(model: type[BaseModel], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting that has a default, with it; the same ones."""
    for name, field in model.model_fields.items():
        if inner := models(field.annotation):
            yield from defaults(inner[0], *above, name)
        elif not field.is_required() and (*above, name) != NO_CHOICE:
            default = field.get_default(call_default_factory=True)
            yield (*above, name), getattr(default, "get_secret_value", lambda default=default: default)()


def at(tables: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = tables
    for part in path:
        value = value[part]
    return value


def leaf_paths(tables: Mapping[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from leaf_paths(value, *above, key)
        else:
            yield (*above, key)


OTHER_LOGIN = r"^# \[vault\.auth\]\n(?:#.*\n)+"
"""A table that is commented out."""


class TestExample:
    """``config.example.toml``: every setting, with its default."""

    @pytest.fixture
    def written(self) -> dict[str, Any]:
        """All that is in it, what is commented out for want of a default included; but not the other logins."""
        text = re.sub(OTHER_LOGIN, "", EXAMPLE.read_text(), flags=re.MULTILINE)
        return tomllib.loads(re.sub(r"^# ?([a-z_]+ = )", r"\1", text, flags=re.MULTILINE))

    def test_it_loads_once_it_has_a_key_an_address_and_a_token(self) -> None:
        settings = load(
            EXAMPLE,
            {
                "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([PEM]),
                "WOODPECKER_VAULT_VAULT__ADDRESS": "http://vault.example:8200",
                "WOODPECKER_VAULT_VAULT__AUTH__TOKEN": "hvs.the-token",
            },
        )
        assert settings == check(document(), {})

    def test_every_setting_is_in_it_and_nothing_else(self, written: dict[str, Any]) -> None:
        assert set(leaf_paths(written)) == set(leaves(Settings))

    def test_every_value_in_it_is_the_default(self, written: dict[str, Any]) -> None:
        for path, default in defaults(Settings):
            assert at(written, path) == default, path
            assert type(at(written, path)) is type(default), path

    def test_every_other_login_is_in_it_with_all_its_settings_and_their_defaults(self) -> None:
        found = re.findall(OTHER_LOGIN, EXAMPLE.read_text(), flags=re.MULTILINE)
        tables = [tomllib.loads(re.sub(r"^# ?", "", text, flags=re.MULTILINE))["vault"]["auth"] for text in found]
        assert [table["method"] for table in tables] == [name for name in METHODS if name != "token"]
        for table in tables:
            login = METHODS[table["method"]]
            # Where there is nothing to choose, there is nothing to set.
            assert set(table) == set(login.model_fields) - ({"mount"} if table["method"] == "none" else set())
            for (key,), default in defaults(login):
                if key not in table:
                    continue
                assert (table[key], type(table[key])) == (default, type(default)), key

    def test_a_copy_of_it_takes_the_address_and_token_from_vaults_own_variables(self) -> None:
        settings = load(
            EXAMPLE,
            {
                "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([PEM]),
                "VAULT_ADDR": "http://vault.example:8200",
                "VAULT_TOKEN": "hvs.the-token",
            },
        )
        assert settings == check(document(), {})

    def test_a_copy_of_it_takes_the_rest_of_vaults_own_variables_too(self, certificates: Path) -> None:
        settings = load(
            EXAMPLE,
            {
                "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([PEM]),
                "WOODPECKER_VAULT_VAULT__AUTH__TOKEN": "hvs.the-token",
                "VAULT_ADDR": "http://vault.example:8200",
                "VAULT_NAMESPACE": "team",
                "VAULT_CACERT": str(certificates / "ca.pem"),
                "VAULT_TLS_SERVER_NAME": "vault.internal",
            },
        )
        vault = settings.vault
        assert (vault.namespace, vault.tls_server_name) == ("team", "vault.internal")
        assert vault.ca_cert == str(certificates / "ca.pem")


class TestPrecedence:
    def test_the_environment_goes_before_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text(
            toml(
                {
                    "server": {"port": 1111, "host": "127.0.0.1"},
                    "woodpecker": {"public_keys": [PEM]},
                    "vault": {"address": "http://file:8200"},
                    "vault.auth": {"token": "file-token"},
                }
            )
        )
        settings = load(
            file,
            {
                "WOODPECKER_VAULT_SERVER__PORT": "2222",
                "WOODPECKER_VAULT_VAULT__ADDRESS": "http://environment:8200",
                "WOODPECKER_VAULT_VAULT__AUTH__TOKEN": "environment-token",
                "VAULT_ADDR": "http://variable:8200",
                "VAULT_TOKEN": "variable-token",
            },
        )
        assert (settings.server.port, settings.server.host) == (2222, "127.0.0.1")
        assert settings.vault.address == "http://environment:8200"
        assert settings.vault.auth == Token(token=SecretStr("environment-token"))

    def test_the_file_goes_before_vaults_own_variables(self) -> None:
        settings = check(document(), {"VAULT_ADDR": "http://variable:8200", "BAO_TOKEN": "variable-token"})
        assert settings.vault.address == "http://vault.example:8200"
        assert settings.vault.auth == Token(token=SecretStr("hvs.the-token"))

    def test_openbaos_variables_go_before_vaults(self) -> None:
        settings = check(
            {"woodpecker": {"public_keys": [PEM]}},
            {
                "BAO_ADDR": "http://bao:8200",
                "VAULT_ADDR": "http://vault:8200",
                "BAO_TOKEN": "s.bao",
                "VAULT_TOKEN": "hvs.vault",
                "VAULT_NAMESPACE": "team",
            },
        )
        assert settings.vault.address == "http://bao:8200"
        assert settings.vault.auth == Token(token=SecretStr("s.bao"))
        assert settings.vault.namespace == "team"

    def test_an_empty_variable_of_vaults_is_none(self) -> None:
        settings = check(
            {"woodpecker": {"public_keys": [PEM]}},
            {
                "BAO_ADDR": "",
                "VAULT_ADDR": "http://vault:8200",
                "BAO_TOKEN": "",
                "VAULT_TOKEN": "hvs.vault",
                "VAULT_CACERT": "",
            },
        )
        assert settings.vault.address == "http://vault:8200"
        assert settings.vault.auth == Token(token=SecretStr("hvs.vault"))
        assert settings.vault.ca_cert == ""

    @pytest.mark.parametrize("prefix", ["VAULT_", "BAO_"])
    def test_all_of_vaults_own_variables_are_known(self, prefix: str, certificates: Path) -> None:
        names = ("ca.pem", "authorities", "client.pem", "client.key")
        ca, authorities, client, key = (str(certificates / name) for name in names)
        settings = check(
            {"woodpecker": {"public_keys": [PEM]}},
            {
                f"{prefix}ADDR": "https://vault:8200/",
                f"{prefix}TOKEN": "hvs.vault",
                f"{prefix}NAMESPACE": "team/ci",
                f"{prefix}CACERT": ca,
                f"{prefix}CAPATH": authorities,
                f"{prefix}CLIENT_CERT": client,
                f"{prefix}CLIENT_KEY": key,
                f"{prefix}TLS_SERVER_NAME": "vault.internal",
                f"{prefix}SKIP_VERIFY": "true",
            },
        )
        assert settings.vault.model_dump(exclude={"auth", "cache"}) == {
            "address": "https://vault:8200",
            "namespace": "team/ci",
            "ca_cert": ca,
            "ca_path": authorities,
            "client_cert": client,
            "client_key": key,
            "tls_server_name": "vault.internal",
            "skip_verify": True,
            "timeout": 3.0,
            "max_connections": 32,
            "max_retries": 8,
            "follow_redirects": True,
            "proxy": "",
        }
        assert settings.vault.auth == Token(token=SecretStr("hvs.vault"))

    def test_vaults_token_is_not_used_where_a_token_file_is_set(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("s.file")
        settings = check(
            {
                "woodpecker": {"public_keys": [PEM]},
                "vault": {"address": "http://vault:8200", "auth": {"token_file": str(file)}},
            },
            {"VAULT_TOKEN": "hvs.vault"},
        )
        assert settings.vault.auth == Token(token_file=str(file))

    def test_everything_can_come_from_the_environment(self) -> None:
        settings = load(
            None,
            {
                "WOODPECKER_VAULT_WOODPECKER__SERVER_URL": "https://ci.example.com/",
                "WOODPECKER_VAULT_VAULT__ADDRESS": "https://vault.example.com:8200",
                "WOODPECKER_VAULT_VAULT__AUTH__TOKEN": "hvs.the-token",
                "WOODPECKER_VAULT_SERVER__PROXY_STRIPS_BASE_PATH": "true",
                "WOODPECKER_VAULT_SERVER__REQUEST_TIMEOUT": "2.5",
                "WOODPECKER_VAULT_SERVER__BASE_PATH": "/extension-3f9c",
                "WOODPECKER_VAULT_SECRETS__FORKS": "allow",
            },
        )
        assert settings.woodpecker.server_url == "https://ci.example.com"
        assert settings.server.proxy_strips_base_path is True
        assert settings.server.request_timeout == 2.5
        assert settings.server.base_path == "/extension-3f9c"
        assert settings.secrets.forks == "allow"

    def test_the_given_tables_stay_as_they_were(self) -> None:
        given: dict[str, Any] = {"woodpecker": {"public_keys": [PEM]}, "vault": {}}
        check(given, {"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "hvs.vault"})
        assert given == {"woodpecker": {"public_keys": [PEM]}, "vault": {}}


class TestVault:
    """``[vault]`` beyond its address and certificates."""

    @pytest.mark.parametrize(
        "address",
        [
            ["https://one:8200/", "https://two:8200"],
            "https://one:8200,https://two:8200",
            " https://one:8200/ , https://two:8200 ",
        ],
    )
    def test_there_may_be_several_addresses(self, address: object) -> None:
        settings = check(document(vault={"address": address}), {})
        assert settings.vault.address == "https://one:8200,https://two:8200"

    @pytest.mark.parametrize(
        "address", [[], [5], "https://one:8200,", ["https://one:8200", "two"], ["", "https://two"]]
    )
    def test_each_of_them_must_be_one(self, address: object) -> None:
        (line,) = problems(document(vault={"address": address}))
        assert line.startswith("[vault] address: ")

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("60", 60.0), ("60s", 60.0), ("1m30s", 90.0), ("500ms", 0.5), ("0.5s", 0.5), ("1h", 3600.0)],
    )
    def test_vaults_timeout_is_a_duration(self, text: str, seconds: float) -> None:
        assert check(document(), {"VAULT_CLIENT_TIMEOUT": text}).vault.timeout == seconds

    @pytest.mark.parametrize("text", ["soon", "s", "1.2.3s", "60x", "5m junk", "0s", "-1s"])
    def test_what_is_none_is_named(self, text: str) -> None:
        (line,) = problems(document(), {"VAULT_CLIENT_TIMEOUT": text})
        assert line.startswith("[vault] timeout: ")

    def test_the_rest_of_vaults_variables(self) -> None:
        settings = check(
            document(),
            {
                "VAULT_MAX_RETRIES": "0",
                "VAULT_DISABLE_REDIRECTS": "true",
                "VAULT_HTTP_PROXY": "http://other:3128",
                "VAULT_PROXY_ADDR": "http://proxy:3128",
            },
        )
        assert settings.vault.max_retries == 0
        assert settings.vault.follow_redirects is False
        assert settings.vault.proxy == "http://proxy:3128"
        assert check(document(), {"VAULT_DISABLE_REDIRECTS": "false"}).vault.follow_redirects is True

    def test_what_the_file_says_of_redirects_goes_before(self) -> None:
        settings = check(document(vault={"follow_redirects": True}), {"VAULT_DISABLE_REDIRECTS": "1"})
        assert settings.vault.follow_redirects is True

    def test_something_stale_needs_a_cache_to_come_from(self) -> None:
        (line,) = problems(document(vault={"cache": {"stale_if_error": 60}}))
        assert line == '[vault] cache: stale_if_error needs mode = "validated" or "ttl": without, nothing is kept'
        assert check(document(vault={"cache": {"mode": "ttl", "stale_if_error": 60}}), {}).vault.cache.ttl == 60

    @pytest.mark.parametrize(("key", "value"), [("mode", "on"), ("ttl", 0), ("stale_if_error", -1), ("max_bytes", 0)])
    def test_a_cache_that_makes_no_sense_is_named(self, key: str, value: object) -> None:
        (line,) = problems(document(vault={"cache": {key: value}}))
        assert line.startswith(f"[vault.cache] {key}: ")


class TestLists:
    def test_a_list_in_the_environment_is_a_json_array(self) -> None:
        settings = check(
            document(),
            {
                "WOODPECKER_VAULT_SECRETS__LAYERS": '["ci/{owner}/{repo}/", "ci/shared"]',
                "WOODPECKER_VAULT_SECRETS__DEFAULT_EVENTS": '["push"]',
                "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([PEM, PEM]),
            },
        )
        assert settings.secrets.layers == ["ci/{owner}/{repo}/", "ci/shared"]
        assert settings.secrets.default_events == ["push"]
        assert settings.woodpecker.public_keys == [PEM, PEM]

    @pytest.mark.parametrize("value", ["push", "push,tag", "", "[push]", '["push"', "5x"])
    def test_anything_else_is_said_to_be_none(self, value: str) -> None:
        (line,) = problems(document(), {"WOODPECKER_VAULT_SECRETS__DEFAULT_EVENTS": value})
        assert line.startswith("[secrets] default_events: must be a JSON array")

    @pytest.mark.parametrize("value", ["{}", "5", "null", "true", '"push"'])
    def test_other_json_is_said_to_be_no_list(self, value: str) -> None:
        (line,) = problems(document(), {"WOODPECKER_VAULT_SECRETS__DEFAULT_EVENTS": value})
        assert line.startswith("[secrets] default_events: ")
        assert "list" in line or "array" in line


class TestUnknownSettings:
    @pytest.mark.parametrize(
        ("sections", "expected"),
        [
            ({"sever": {"port": 5}}, "[sever]: there is no such setting"),
            ({"port": 5}, "[port]: there is no such setting"),
            ({"server": {"prot": 5}}, "[server] prot: there is no such setting"),
            (
                {"vault": {"auth": {"rolle": "x"}}},
                '[vault.auth] rolle: there is no such setting with method = "token"',
            ),
            (
                {"vault": {"auth": {"secret_id": "x"}}},
                '[vault.auth] secret_id: there is no such setting with method = "token", only with approle',
            ),
            ({"secrets": {"Layers": []}}, "[secrets] Layers: there is no such setting"),
        ],
    )
    def test_one_in_the_file_is_named(self, sections: dict[str, Any], expected: str) -> None:
        assert problems(document(**sections)) == [expected]

    @pytest.mark.parametrize(
        ("variable", "expected"),
        [
            ("WOODPECKER_VAULT_SEVER__PORT", "[sever]: there is no such setting"),
            ("WOODPECKER_VAULT_SERVER__PROT", "[server] prot: there is no such setting"),
            (
                "WOODPECKER_VAULT_VAULT__AUTH__ROLE_ID",
                '[vault.auth] role_id: there is no such setting with method = "token", only with approle',
            ),
        ],
    )
    def test_one_in_the_environment_is_named(self, variable: str, expected: str) -> None:
        assert problems(document(), {variable: "5"}) == [expected]

    @pytest.mark.parametrize("port", [{}, {"WOODPECKER_VAULT_SERVER__PORT": "9000"}])
    def test_one_below_a_setting_is_not_passed_over(self, port: dict[str, str]) -> None:
        (line,) = problems(document(), {"WOODPECKER_VAULT_SERVER__PORT__NUMBER": "9001", **port})
        assert line.startswith("[server] port")

    def test_what_kubernetes_sets_for_a_service_of_this_name_does_no_harm(self) -> None:
        kubernetes = {
            "WOODPECKER_VAULT_PORT": "tcp://10.0.0.7:8080",
            "WOODPECKER_VAULT_SERVICE_HOST": "10.0.0.7",
            "WOODPECKER_VAULT_SERVICE_PORT": "8080",
            "WOODPECKER_VAULT_SERVICE_PORT_HTTP": "8080",
            "WOODPECKER_VAULT_PORT_8080_TCP": "tcp://10.0.0.7:8080",
            "WOODPECKER_VAULT_PORT_8080_TCP_ADDR": "10.0.0.7",
            "WOODPECKER_VAULT_PORT_8080_TCP_PORT": "8080",
            "WOODPECKER_VAULT_PORT_8080_TCP_PROTO": "tcp",
        }
        assert check(document(), kubernetes) == check(document(), {})

    def test_what_kubernetes_sets_for_a_service_named_vault_does_no_harm(self) -> None:
        kubernetes = {
            "VAULT_PORT": "tcp://10.0.0.8:8200",
            "VAULT_SERVICE_HOST": "10.0.0.8",
            "VAULT_PORT_8200_TCP_ADDR": "10.0.0.8",
        }
        assert check(document(), kubernetes) == check(document(), {})


class TestWrongValues:
    """Each wrong value alone gives exactly one line, which names it."""

    @pytest.mark.parametrize(
        ("sections", "where", "what"),
        [
            ({"server": {"port": 65536}}, "[server] port", "65535"),
            ({"server": {"port": -1}}, "[server] port", "0"),
            ({"server": {"port": "http"}}, "[server] port", "integer"),
            ({"server": {"host": 5}}, "[server] host", "string"),
            ({"server": {"base_path": "extension"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/extension/"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a?b"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a b"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a\nb"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a%20b"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/{name}"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a//b"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/../a"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"base_path": "/a{"}}, "[server] base_path", "/extension-3f9c"),
            ({"server": {"proxy_strips_base_path": "maybe"}}, "[server] proxy_strips_base_path", "boolean"),
            ({"server": {"request_timeout": 0}}, "[server] request_timeout", "greater than 0"),
            ({"server": {"request_timeout": float("nan")}}, "[server] request_timeout", ""),
            ({"server": {"max_body_bytes": 0}}, "[server] max_body_bytes", "greater than 0"),
            ({"server": {"tls_cert": "/nowhere.pem", "tls_key": __file__}}, "[server] tls_cert", "No such file"),
            ({"server": {"tls_cert": __file__}}, "[server]", "tls_cert and tls_key go together"),
            ({"server": {"tls_key": __file__}}, "[server]", "tls_cert and tls_key go together"),
            ({"woodpecker": {"public_keys": []}}, "[woodpecker]", "no public key"),
            ({"woodpecker": {"public_keys": ["no PEM"]}}, "[woodpecker", "PEM"),
            ({"woodpecker": {"public_keys": [RSA_PEM]}}, "[woodpecker", "ed25519"),
            ({"woodpecker": {"public_keys": [private_pem(KEY).decode()]}}, "[woodpecker", "PEM"),
            ({"woodpecker": {"public_keys": [PEM, ""]}}, "[woodpecker", "PEM"),
            ({"woodpecker": {"public_key_files": ["/nowhere.pem"]}}, "[woodpecker", "No such file"),
            ({"woodpecker": {"public_key_files": ["/"]}}, "[woodpecker", "/: Is a directory"),
            ({"woodpecker": {"public_key_files": [__file__]}}, "[woodpecker", "not a PEM public key"),
            ({"woodpecker": {"public_key_files": "key.pem"}}, "[woodpecker] public_key_files", "array"),
            ({"woodpecker": {"server_url": "ci.example.com"}}, "[woodpecker] server_url", "https://"),
            ({"woodpecker": {"server_url": "https://"}}, "[woodpecker] server_url", "https://"),
            ({"woodpecker": {"token_file": "/nowhere"}}, "[woodpecker] token_file", "No such file"),
            ({"woodpecker": {"max_age": 0}}, "[woodpecker] max_age", "greater than 0"),
            ({"woodpecker": {"max_age": 1e9}}, "[woodpecker] max_age", "3600"),
            ({"woodpecker": {"max_clock_skew": -1}}, "[woodpecker] max_clock_skew", "0"),
            ({"vault": {"address": "vault:8200"}}, "[vault] address", "https://"),
            ({"vault": {"address": ""}}, "[vault] address", "VAULT_ADDR"),
            ({"vault": {"address": "http://"}}, "[vault] address", "https://"),
            ({"vault": {"address": "ftp://vault"}}, "[vault] address", "https://"),
            ({"vault": {"address": "https://vault?x=1"}}, "[vault] address", "https://"),
            ({"vault": {"address": "https://va\nult"}}, "[vault] address", "https://"),
            ({"vault": {"address": "http://vault:99999"}}, "[vault] address", "https://"),
            ({"vault": {"ca_cert": "/nowhere.pem"}}, "[vault] ca_cert", "No such file"),
            ({"vault": {"ca_path": "/nowhere"}}, "[vault] ca_path", "No such file"),
            ({"vault": {"client_cert": "/nowhere.pem"}}, "[vault] client_cert", "No such file"),
            ({"vault": {"client_key": __file__}}, "[vault]", "client_cert"),
            ({"vault": {"skip_verify": "perhaps"}}, "[vault] skip_verify", "boolean"),
            ({"vault": {"timeout": -3}}, "[vault] timeout", "greater than 0"),
            ({"vault": {"max_connections": 0}}, "[vault] max_connections", "greater than 0"),
            ({"vault": {"auth": {"method": "magic"}}}, "[vault.auth] method", "there are token"),
            ({"vault": {"auth": {"token": ""}}}, "[vault", "token or token_file"),
            ({"vault": {"auth": {"token_file": __file__}}}, "[vault", "token or token_file"),
            ({"vault": {"auth": {"token": 5}}}, "[vault.auth] token", "string"),
            ({"vault": {"auth": {"token": "", "token_file": "/nowhere"}}}, "[vault.auth] token_file", "No such file"),
            ({"secrets": {"mount": ""}}, "[secrets] mount", "KV v2"),
            ({"secrets": {"mount": "a/../b"}}, "[secrets] mount", "KV v2"),
            ({"secrets": {"repo": "ci/repo/"}}, "[secrets] repo", "{repo_id}"),
            ({"secrets": {"repo": "ci/{repo_id}"}}, "[secrets] repo", "end with /"),
            ({"secrets": {"repo": "ci/{owner}/{repo_id}/"}}, "[secrets] repo", "unknown placeholder {owner}"),
            ({"secrets": {"layers": ["ci/", "ci/{team}/"]}}, "[secrets", "unknown placeholder {team}"),
            ({"secrets": {"layers": ["ci/{owner/"]}}, "[secrets", "ci/{owner/"),
            ({"secrets": {"layers": ["ci//x"]}}, "[secrets", "segment"),
            ({"secrets": {"layers": ["/ci/"]}}, "[secrets", "segment"),
            ({"secrets": {"layers": ["ci/{owner}{repo}/"]}}, "[secrets", "two placeholders"),
            ({"secrets": {"layers": ["ci/{}/"]}}, "[secrets", "placeholder"),
            ({"secrets": {"layers": ["ci/{owner!r}/"]}}, "[secrets", "placeholder"),
            ({"secrets": {"layers": [5]}}, "[secrets", "string"),
            ({"secrets": {"default_events": []}}, "[secrets] default_events", "1 item"),
            ({"secrets": {"default_events": ["push", "pushed"]}}, "[secrets", "unknown event"),
            ({"secrets": {"forks": "perhaps"}}, "[secrets] forks", "'allow' or 'deny'"),
            ({"secrets": {"delete": "hard"}}, "[secrets] delete", "'soft' or 'destroy'"),
            ({"log": {"level": "loud"}}, "[log] level", "'debug', 'info', 'warning' or 'error'"),
            ({"log": {"format": "xml"}}, "[log] format", "'auto', 'console' or 'json'"),
            ({"server": 5}, "[server]", ""),
            ({"server": "http"}, "[server]", ""),
            ({"woodpecker": 5}, "[woodpecker]", ""),
            ({"vault": 5}, "[vault]", ""),
            ({"vault": {"auth": 5}}, "[vault.auth]: ", ""),
            ({"secrets": [{"mount": "x"}]}, "[secrets]", ""),
            ({"log": True}, "[log]", ""),
        ],
        ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
    )
    def test_it_is_named_in_one_line(self, sections: dict[str, Any], where: str, what: str) -> None:
        (line,) = problems(document(**sections))
        assert line.startswith(where)
        assert what in line.partition(": ")[2]

    def test_what_the_environment_says_of_a_table_that_is_none_changes_nothing_of_that(self) -> None:
        (line,) = problems(
            document(server=5, vault=5),
            {"WOODPECKER_VAULT_SERVER__PORT": "9000", "VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "hvs.x"},
        )[:1]
        assert line.startswith("[server]: ")

    def test_the_least_that_is_missing_is_named_all_at_once(self) -> None:
        woodpecker, address, token = problems({})
        assert woodpecker == "[woodpecker]: no public key: set public_key_files, public_keys or server_url"
        assert address == "[vault] address: set it, or VAULT_ADDR in the environment"
        assert token == "[vault.auth]: set either token or token_file, or VAULT_TOKEN in the environment"

    def test_everything_wrong_is_named_at_once(self) -> None:
        lines = problems(
            {
                "server": {"port": 99999, "prot": 1, "tls_cert": "/nowhere.pem"},
                "woodpecker": {"public_keys": ["no PEM", PEM, RSA_PEM]},
                "vault": {"address": "vault", "auth": {"method": "magic"}},
                "secrets": {"layers": ["a//", "{b}/"], "forks": "perhaps"},
                "log": 5,
                "lgo": {},
            },
            {"WOODPECKER_VAULT_SERVER__REQUEST_TIMEOUT": "long"},
        )
        assert len(lines) == 13
        assert len(set(lines)) == 13


SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""Where Kubernetes puts it, and it is not on this machine."""


def logging_in(**auth: Any) -> dict[str, Any]:
    """The least that is needed, with this for ``[vault.auth]``."""
    return {"woodpecker": {"public_keys": [PEM]}, "vault": {"address": "https://vault.example:8200", "auth": auth}}


class TestLogin:
    """``[vault.auth]``: one table, whose keys are those of the method that it names."""

    @pytest.mark.parametrize(
        "auth",
        [
            {"method": "token", "token": "hvs.x"},
            {"method": "approle", "role_id": "x", "secret_id": "y", "mount": "ci/approle", "namespace": "team"},
            {"method": "kubernetes", "role": "x", "jwt_file": __file__, "audience": "vault"},
            {"method": "jwt", "jwt_file": __file__},
            {"method": "userpass", "username": "x", "password": "y"},
            {"method": "ldap", "username": "x", "password_file": __file__},
            {"method": "aws", "role": "x", "region": "eu-central-1", "header_value": "y"},
        ],
        ids=lambda auth: str(auth["method"]),
    )
    def test_it_is_made_from_the_file_or_the_environment(self, auth: dict[str, str]) -> None:
        variables = {f"WOODPECKER_VAULT_VAULT__AUTH__{key.upper()}": value for key, value in auth.items()}
        made = check(logging_in(**auth), {}).vault.auth
        assert made == METHODS[auth["method"]].model_validate(auth)
        assert check(logging_in(), variables).vault.auth == made

    @pytest.mark.parametrize(("text", "expected"), [("true", True), ("1", True), ("false", False)])
    def test_a_flag_in_the_environment_is_one(self, text: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
        auth = check(
            logging_in(method="approle", role_id="x", secret_id="y"),
            {"WOODPECKER_VAULT_VAULT__AUTH__SECRET_ID_WRAPPED": text},
        ).vault.auth
        assert auth.model_dump()["secret_id_wrapped"] is expected

    @pytest.mark.parametrize(
        ("auth", "lines"),
        [
            (
                {"method": "aprole", "role_id": "x"},
                [f"[vault.auth] method: unknown method; there are {', '.join(METHODS)}"],
            ),
            ({"method": 5}, [f"[vault.auth] method: unknown method; there are {', '.join(METHODS)}"]),
            ({"method": "approle"}, ["[vault.auth]: set either role_id or role_id_file"]),
            (
                {"method": "approle", "role_id": "x", "username": "y"},
                ['[vault.auth] username: there is no such setting with method = "approle", only with userpass, ldap'],
            ),
            (
                {"method": "approle", "role_id_file": "/nowhere", "secret_id_file": "/nowhere"},
                [
                    "[vault.auth] role_id_file: No such file or directory",
                    "[vault.auth] secret_id_file: No such file or directory",
                ],
            ),
            (
                {"method": "kubernetes"},
                [
                    '[vault.auth] role: set it, as method = "kubernetes" needs it',
                    (
                        f"[vault.auth] jwt_file: not set, and there is no {SERVICE_ACCOUNT}:"
                        " this is not a pod with a service account's token"
                    ),
                ],
            ),
            ({"method": "jwt"}, ['[vault.auth] jwt_file: set it, as method = "jwt" needs it']),
            (
                {"method": "jwt", "jwt_file": __file__, "mount": "a//b"},
                ["[vault.auth] mount: must be the path of an auth method, as `vault auth list` shows it"],
            ),
            (
                {"method": "userpass", "username": "a/b", "password": "c"},
                ["[vault.auth] username: must be a user's name, without slashes"],
            ),
            ({"method": "ldap", "username": "a"}, ["[vault.auth]: set either password or password_file"]),
            ({"method": "cert"}, ['[vault]: auth.method = "cert" needs a client_cert']),
        ],
        ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
    )
    def test_what_is_wrong_is_a_line_that_names_the_key(self, auth: dict[str, Any], lines: list[str]) -> None:
        assert problems(logging_in(**auth)) == lines

    def test_a_certificate_needs_an_address_with_https(self, certificates: Path) -> None:
        vault = {"client_cert": str(certificates / "client-both.pem"), "auth": {"method": "cert"}}
        given = {"woodpecker": {"public_keys": [PEM]}, "vault": vault}
        assert check(given, {"VAULT_ADDR": "https://vault:8200"}).vault.auth.method == "cert"
        for address in ("http://vault:8200", "https://vault:8200,http://other:8200"):
            expected = ['[vault]: auth.method = "cert" needs an address with https']
            assert problems(given, {"VAULT_ADDR": address}) == expected

    def test_vaults_token_is_no_matter_of_another_method(self, tmp_path: Path) -> None:
        tmp_path.joinpath(".vault-token").write_text("hvs.home")
        given = logging_in(method="approle", role_id="x")
        variables = {"VAULT_TOKEN": "hvs.x", "BAO_TOKEN": "s.x", "HOME": str(tmp_path)}
        assert check(given, variables) == check(given, {})

    def test_without_a_token_the_one_is_taken_that_vaults_own_tools_keep(self, tmp_path: Path) -> None:
        kept = tmp_path / ".vault-token"
        home = {"HOME": str(tmp_path)}
        assert problems(logging_in(), home) == [
            "[vault.auth]: set either token or token_file, or VAULT_TOKEN in the environment"
        ]
        kept.write_text("hvs.home")
        for auth in ({}, {"method": "token"}, {"token": "", "token_file": ""}):
            assert check(logging_in(**auth), home).vault.auth == Token(token_file=str(kept))
        assert check(logging_in(), {**home, "VAULT_TOKEN": "hvs.x"}).vault.auth == Token(token=SecretStr("hvs.x"))
        assert check(logging_in(token="hvs.y"), home).vault.auth == Token(token=SecretStr("hvs.y"))
        assert check(logging_in(token_file=__file__), home).vault.auth == Token(token_file=__file__)

    def test_no_home_is_no_such_file(self) -> None:
        assert problems(logging_in(), {"HOME": ""}) == problems(logging_in(), {})

    @pytest.mark.parametrize(
        "auth",
        [
            {"method": "approle", "role_id": "x", "secret_id": ["the-secret"]},
            {"method": "approle", "secret_id": "the-secret"},
            {"method": "approle", "role_id": "x", "secret_id": "the-secret", "secret_id_file": __file__},
            {"method": "userpass", "username": "a/b", "password": "the-secret"},
            {"method": "ldap", "username": "a", "password": "the-secret", "password_file": __file__},
            {"method": "ldap", "username": "a", "passwort": "the-secret"},
            {"method": "the-secret"},
        ],
        ids=lambda auth: json.dumps(auth)[:60],
    )
    def test_no_line_shows_a_secret(self, auth: dict[str, Any]) -> None:
        assert "the-secret" not in "\n".join(problems(logging_in(**auth)))


class TestCertificates:
    def test_a_clients_certificate_and_key_may_be_one_file(self, certificates: Path) -> None:
        both = str(certificates / "client-both.pem")
        assert check(document(vault={"client_cert": both}), {}).vault.client_cert == both

    @pytest.mark.parametrize(
        ("sections", "where"),
        [
            ({"vault": {"ca_cert": "client.key"}}, "[vault] ca_cert"),
            ({"vault": {"client_cert": "client.pem"}}, "[vault]"),
            ({"vault": {"client_cert": "ca.pem", "client_key": "client.key"}}, "[vault]"),
            ({"server": {"tls_cert": "ca.pem", "tls_key": "client.key"}}, "[server]"),
            ({"server": {"tls_cert": "client.key", "tls_key": "client.pem"}}, "[server]"),
        ],
    )
    def test_what_cannot_be_used_is_one_line(
        self, certificates: Path, sections: dict[str, dict[str, str]], where: str
    ) -> None:
        given = {
            section: {key: str(certificates / name) for key, name in table.items()}
            for section, table in sections.items()
        }
        (line,) = problems(document(**given))
        assert line.startswith(where)

    @pytest.mark.parametrize(("key", "name"), [("ca_cert", "authorities"), ("ca_path", "ca.pem")])
    def test_a_folder_and_a_file_taken_for_each_other_work_or_are_one_line(
        self, certificates: Path, key: str, name: str
    ) -> None:
        try:
            vault = check(document(vault={key: str(certificates / name)}), {}).vault
        except ConfigError as error:
            (line,) = error.lines
            assert line.startswith(f"[vault] {key}: ")
        else:
            connection = Connection("https://vault", ca_cert=vault.ca_cert, ca_path=vault.ca_path)
            assert tls_context(connection).get_ca_certs()

    def test_a_folder_of_authorities_may_be_mounted_by_kubernetes(self, certificates: Path, tmp_path: Path) -> None:
        mounted = tmp_path / "mounted"
        (mounted / "..2026_11_24").mkdir(parents=True)
        (certificates / "ca.pem").rename(mounted / "..2026_11_24" / "ca.pem")
        (mounted / "..data").symlink_to("..2026_11_24")
        (mounted / "ca.pem").symlink_to("..data/ca.pem")
        settings = check(document(vault={"ca_path": str(mounted)}), {})
        assert tls_context(Connection("https://vault", ca_path=settings.vault.ca_path)).get_ca_certs()


class TestPastedInsteadOfAPath:
    """What belongs into a file, written where the file's path belongs."""

    @pytest.mark.parametrize(
        "secret",
        ["hunter2", "hunter2/x", "/hunter2", "/etc/hunter2", "./hunter2", "hunter2.pem", "hvs.hunter2", "hunter2\n"],
    )
    @pytest.mark.parametrize(
        ("table", "setting"),
        [
            ({"method": "token"}, "token_file"),
            ({"method": "approle"}, "role_id_file"),
            ({"method": "approle", "role_id": "x"}, "secret_id_file"),
            ({"method": "kubernetes", "role": "x"}, "jwt_file"),
            ({"method": "jwt"}, "jwt_file"),
            ({"method": "userpass", "username": "x"}, "password_file"),
            ({"method": "ldap", "username": "x"}, "password_file"),
        ],
        ids=lambda value: value if isinstance(value, str) else value["method"],
    )
    def test_a_secret_is_not_shown_whatever_it_looks_like(
        self, table: dict[str, str], setting: str, secret: str
    ) -> None:
        (line,) = problems({**document(), "vault": {"address": "http://v:8200", "auth": {**table, setting: secret}}})
        assert line.startswith(f"[vault.auth] {setting}: ")
        assert "hunter2" not in line

    @pytest.mark.parametrize(
        ("section", "setting"),
        [
            ("server", "tls_cert"),
            ("server", "tls_key"),
            ("woodpecker", "public_key_files"),
            ("woodpecker", "token_file"),
            ("woodpecker", "ca_cert"),
            ("vault", "ca_cert"),
            ("vault", "ca_path"),
            ("vault", "client_cert"),
            ("vault", "client_key"),
        ],
    )
    def test_nor_is_one_in_any_other_place_for_a_path(self, section: str, setting: str) -> None:
        value = ["/hunter2/x"] if setting == "public_key_files" else "/hunter2/x"
        text = "\n".join(problems(document(**{section: {setting: value}})))
        assert setting in text
        assert "hunter2" not in text

    def test_a_path_at_which_there_is_something_else_is_shown(self, tmp_path: Path) -> None:
        (line,) = problems(document(woodpecker={"token_file": str(tmp_path)}))
        assert f"{tmp_path}: Is a directory" in line

    def test_a_certificate_and_its_key_are_refused_without_showing_the_key(self) -> None:
        pasted = "-----BEGIN PRIVATE KEY-----\n" + "MC4CAQAwBQYDK2VwBCIEIJ\n" * 20 + "-----END PRIVATE KEY-----\n"
        lines = problems(document(server={"tls_cert": pasted, "tls_key": pasted}))
        assert len(lines) == 2
        assert "MC4CAQAwBQYDK2VwBCIEIJ" not in "\n".join(lines)

    def test_a_public_key_is_refused_in_one_line(self) -> None:
        (line,) = problems(document(woodpecker={"public_key_files": [PEM]}))
        assert "public_key_files" in line


class TestLineBreaks:
    """Secrets that are injected into environments, and files that are pasted, often end with one."""

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
    @pytest.mark.parametrize("variable", ["VAULT_TOKEN", "BAO_TOKEN", "WOODPECKER_VAULT_VAULT__AUTH__TOKEN"])
    def test_behind_a_token_in_the_environment_it_does_not_count(self, variable: str, end: str) -> None:
        loaded = check(logging_in(), {variable: f"hvs.the-token{end}"})
        assert loaded.vault.auth == Token(token=SecretStr("hvs.the-token"))

    def test_behind_an_address_in_the_environment_neither(self) -> None:
        given = {"woodpecker": {"public_keys": [PEM]}}
        loaded = check(given, {"VAULT_ADDR": "http://vault:8200\n", "VAULT_TOKEN": "x"})
        assert loaded.vault.address == "http://vault:8200"

    def test_a_token_that_is_only_one_is_none(self, tmp_path: Path) -> None:
        (line,) = problems(logging_in(), {"VAULT_TOKEN": "\n", "HOME": str(tmp_path)})
        assert "VAULT_TOKEN" in line

    def test_behind_secrets_in_the_settings_it_does_not_count(self) -> None:
        auth = check(logging_in(method="approle", role_id="role\n", secret_id="secret\r\n"), {}).vault.auth
        assert isinstance(auth, AppRole)
        assert (auth.role_id, auth.secret_id.get_secret_value()) == ("role", "secret")

    def test_a_password_keeps_its_blanks(self) -> None:
        auth = check(logging_in(method="userpass", username="x", password=" two words \n"), {}).vault.auth
        assert isinstance(auth, Userpass)
        assert auth.password.get_secret_value() == " two words "

    def test_a_token_of_two_lines_is_refused_and_not_shown(self) -> None:
        (line,) = problems(logging_in(token="hunter2\nhunter3"), {})
        assert "[vault.auth] token: must be one line" in line
        assert "hunter" not in line


class TestSockets:
    def test_an_address_may_be_one_and_stand_beside_others(self) -> None:
        loaded = check(document(vault={"address": ["unix:///run/a.sock", "https://vault:8200/"]}), {})
        assert loaded.vault.address == "unix:///run/a.sock,https://vault:8200"

    @pytest.mark.parametrize(
        "address", ["unix://", "unix:///", "unix:/run/a.sock", "unix://run/a.sock", "unix:///a\nb"]
    )
    def test_one_without_a_whole_path_is_refused(self, address: str) -> None:
        (line,) = problems(document(vault={"address": address}))
        assert '[vault] address: must be like "unix:///run/vault/agent.sock"' in line

    def test_a_certificate_cannot_log_in_over_it(self, certificates: Path) -> None:
        auth = {"method": "cert"}
        client = str(certificates / "client-both.pem")
        vault = {"address": "unix:///run/a.sock", "auth": auth, "client_cert": client}
        (line,) = problems({**document(), "vault": vault})
        assert "needs an address with https" in line


class TestDiffering:
    def test_equal_settings_do_not_differ(self) -> None:
        assert differing(check(document(), {}), check(document(), {})) == []

    def test_what_differs_is_named_without_its_values(self) -> None:
        other = check(document(server={"port": 1}, vault={"timeout": 1.0, "auth": {"token": "hunter2"}}), {})
        found = differing(check(document(), {}), other)
        assert found == ["[server] port", "[vault] timeout", "[vault.auth] token"]

    def test_another_login_is_one_difference(self) -> None:
        other = check({**document(), "vault": {"address": "http://vault.example:8200", "auth": {"method": "none"}}}, {})
        assert differing(check(document(), {}), other) == ["[vault.auth]"]


class TestSecrecy:
    def test_a_token_is_in_no_text_of_the_settings(self) -> None:
        settings = check(document(), {})
        assert "hvs.the-token" not in repr(settings)
        assert "hvs.the-token" not in str(settings)
        assert "hvs.the-token" not in settings.model_dump_json()

    @pytest.mark.parametrize(
        "sections",
        [
            {"vault": {"auth": {"token_file": __file__}}},
            {"vault": {"auth": {"method": "magic"}}},
            {"vault": {"auth": {"tokn": "hvs.the-token"}}},
            {"vault": {"auth": "hvs.the-token"}},
            {"vault": {"auth": {"token": ["hvs.the-token"]}}},
            {"vault": {"token": "hvs.the-token"}},
            {"token": "hvs.the-token"},
            {"server": {"port": 99999}},
        ],
        ids=lambda value: json.dumps(value)[:60],
    )
    def test_a_token_is_in_no_line_about_what_is_wrong(self, sections: dict[str, Any]) -> None:
        assert "hvs.the-token" not in "\n".join(problems(document(**sections)))

    def test_neither_is_one_from_the_environment(self) -> None:
        lines = problems(document(), {"WOODPECKER_VAULT_VAULT__AUTH__TOKN": "s.other", "BAO_TOKEN": "s.third"})
        assert "s.other" not in "\n".join(lines)

    def test_no_cause_of_the_error_shows_it(self) -> None:
        with pytest.raises(ConfigError) as caught:
            check(document(vault={"auth": {"token_file": __file__}}), {})
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


class TestLoad:
    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / "none.toml", {})
        assert caught.value.lines == [f"{tmp_path}/none.toml: No such file or directory"]

    def test_a_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, {})
        assert caught.value.lines == [f"{tmp_path}: Is a directory"]

    @pytest.mark.parametrize("content", [b"[server\nport = 1", b"port = ", b"\xff\xfe", b"[a]\n[a]\n", b"x = 1\nx = 2"])
    def test_what_is_no_toml_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "config.toml"
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(file, {})
        (line,) = caught.value.lines
        assert line.startswith(f"{file}: ")
        assert line.isprintable()

    def test_a_syntax_error_shows_no_token(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text('[vault.auth]\ntoken = "hvs.the-token\n')
        with pytest.raises(ConfigError) as caught:
            load(file, {})
        assert "hvs.the-token" not in str(caught.value)
        assert "line 2" in str(caught.value)

    def test_an_empty_file_is_like_none(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.touch()
        with pytest.raises(ConfigError) as empty:
            load(file, {})
        with pytest.raises(ConfigError) as none:
            load(None, {})
        assert empty.value.lines == none.value.lines

    def test_a_public_key_may_be_in_files(self, tmp_path: Path) -> None:
        key = tmp_path / "woodpecker.pem"
        key.write_text(PEM)
        file = tmp_path / "config.toml"
        file.write_text(
            toml(
                {
                    "woodpecker": {"public_key_files": [str(key)]},
                    "vault": {"address": "http://vault:8200/"},
                    "vault.auth": {"token": "hvs.the-token"},
                }
            )
        )
        settings = load(file, {})
        assert settings.woodpecker.public_key_files == [str(key)]
        assert settings.vault.address == "http://vault:8200"

    def test_settings_cannot_be_changed_afterwards(self) -> None:
        settings = check(document(), {})
        with pytest.raises(ValueError, match="frozen"):
            settings.server.port = 1
