"""The documents are true: links lead somewhere, settings exist, commands and policies work when they are copied."""

import os
import re
import shlex
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, get_origin

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel
from typer.testing import CliRunner

from tests import models
from tests.agent import agent
from tests.cli import run
from tests.servers import Admin, Client, serving, settings
from woodpecker_vault import __version__
from woodpecker_vault.cli import app
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.cli.stand_in import public_pem
from woodpecker_vault.config import ConfigError, Settings, check
from woodpecker_vault.vault.connection import Connection, tls_context
from woodpecker_vault.vault.logins import LOGINS, Method

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DEPLOYMENT = (ROOT / "docker-compose.yml", ROOT / "Dockerfile")
PEM = public_pem(Ed25519PrivateKey.generate())


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that GitHub and Gitea give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def tables(model: type[BaseModel], *above: str) -> dict[str, set[str]]:
    """Every table of the settings with its keys; where a table may be one of several, with the keys of all."""
    found: dict[str, set[str]] = {}
    for name, field in model.model_fields.items():
        inner = models(field.annotation)
        for kind in inner:
            for table, keys in tables(kind, *above, name).items():
                found.setdefault(table, set()).update(keys)
        if not inner:
            found.setdefault(".".join(above), set()).add(name)
    return found


def about(variable: str) -> list[str]:
    """What is said when only this variable is set besides the least that is needed."""
    least = {
        "woodpecker": {"public_keys": [PEM]},
        "vault": {"address": "http://vault.example:8200", "auth": {"token": "hvs.x"}},
    }
    try:
        check(least, {variable: "?"})
    except ConfigError as error:
        return error.lines
    return []


class TestLinks:
    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
    def test_every_link_to_a_file_of_this_project_leads_to_one(self, document: Path) -> None:
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE):
            path, _, anchor = "".join(target).partition("#")
            if path.startswith(("http://", "https://", "mailto:")):
                continue
            file = document.parent / path if path else document
            assert file.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
                assert anchor in map(slug, headings), target

    def test_there_is_a_readme_with_links(self) -> None:
        assert re.search(r"\]\((?!https?:)[^)]+\)", README.read_text())


class TestSettings:
    def test_every_toml_block_of_the_readme_is_a_configuration(self, tmp_path: Path) -> None:
        found = blocks(README, "toml")
        assert found
        reader = tmp_path / "the-readers.pem"
        reader.write_text(PEM)
        for text in found:
            named = r'^(\w*(?:file|files|cert|key) = .*?)"[^"]+"'
            document = tomllib.loads(re.sub(named, rf'\1"{reader}"', text, flags=re.MULTILINE))
            document.setdefault("woodpecker", {}).setdefault("public_keys", [PEM])
            check(document, {"VAULT_ADDR": "http://vault.example:8200", "VAULT_TOKEN": "hvs.x"})

    @pytest.mark.parametrize("document", [*DEPLOYMENT, *DOCUMENTS], ids=lambda path: path.name)
    def test_every_variable_of_ours_that_is_named_is_a_setting_or_an_option(self, document: Path) -> None:
        options = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
        for variable in set(re.findall(r"\bWOODPECKER_VAULT_\w+", document.read_text())):
            known = variable in options if "__" not in variable else not any("no such" in x for x in about(variable))
            assert known, f"{variable} is neither a setting nor named in --help"

    def test_a_variable_that_is_none_would_be_noticed(self) -> None:
        assert about("WOODPECKER_VAULT_SERVER__PROT") == ["[server] prot: there is no such setting"]

    def test_the_deployment_files_name_some(self) -> None:
        for document in DEPLOYMENT:
            assert "WOODPECKER_VAULT_" in document.read_text()

    def test_the_readmes_table_lists_every_setting(self) -> None:
        rows = re.findall(r"^\| `\[([a-z.]+)\]` \| (.*) \|$", README.read_text(), flags=re.MULTILINE)
        listed = {section: set(re.findall(r"`([a-z_]+)`", keys)) for section, keys in rows}
        assert listed == tables(Settings)

    def test_the_readmes_table_of_logins_lists_every_method_with_its_settings(self) -> None:
        section = README.read_text().partition("## Logging in to Vault")[2].partition("\n## ")[0]
        listed = {
            method: set(re.findall(r"`([a-z_]+)`", settings))
            for methods, settings in re.findall(r"^\| (`.*?`) \|.*\| (.*) \|$", section, flags=re.MULTILINE)
            for method in re.findall(r"`(\w+)`", methods)
        }
        own = {login: set(login.model_fields) - set(Method.model_fields) for login in LOGINS}
        assert listed == {login.model_fields["method"].default: settings for login, settings in own.items()}
        (without_mount,) = re.findall(r"All but (.*?) have\s+`mount`", section)
        fixed = {
            login.model_fields["method"].default
            for login in LOGINS
            if get_origin(login.model_fields["mount"].annotation) is Literal
        }
        assert set(re.findall(r"`(\w+)`", without_mount)) == fixed

    @pytest.mark.parametrize("setting", ["ca_cert", "ca_path"])
    def test_given_authorities_are_trusted_instead_of_the_systems_as_the_example_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
    ) -> None:
        assert "instead of the system's" in (ROOT / "config.example.toml").read_text()
        for name in ("given", "system"):
            (tmp_path / name).mkdir()
            trustme.CA(organization_name=name).cert_pem.write_to_path(tmp_path / name / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system" / "ca.pem"))
        file, folder = str(tmp_path / "given" / "ca.pem"), str(tmp_path / "given")
        ca_cert, ca_path = (file, "") if setting == "ca_cert" else ("", folder)
        trusted = str(tls_context(Connection("https://vault.example", ca_cert=ca_cert, ca_path=ca_path)).get_ca_certs())
        assert "'given'" in trusted
        assert "'system'" not in trusted
        assert "'system'" in str(tls_context(Connection("https://vault.example")).get_ca_certs())

    def test_the_compose_file_starts_the_service_with_settings_that_hold(self) -> None:
        compose = (ROOT / "docker-compose.yml").read_text()
        environment = dict(re.findall(r"^\s+(WOODPECKER_VAULT_\w+): (.*)$", compose, flags=re.MULTILINE))
        filled = {
            name: re.sub(r"\$\{[^}]*\}", "https://ci.example.com", value.strip("\"'"))
            for name, value in environment.items()
        }
        loaded = check({}, filled)
        assert loaded.vault.address
        assert f'"{loaded.server.port}:{loaded.server.port}"' in compose


class TestCommands:
    @pytest.mark.parametrize("document", [*DEPLOYMENT, *DOCUMENTS], ids=lambda path: path.name)
    def test_every_command_of_ours_that_is_shown_exists(self, document: Path) -> None:
        pattern = r"(?:^|[`$ ])woodpecker-vault((?: --config \S+)?(?: [a-z]+){1,2})(?=[`\n]|$)"
        for words in re.findall(pattern, document.read_text(), flags=re.MULTILINE):
            arguments = [word for word in shlex.split(words) if not word.startswith(("--", "config", "/"))]
            assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0, words

    def test_every_make_target_that_is_shown_exists(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        shown = set()
        for document in DOCUMENTS:
            shown |= set(re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )?([a-z-]+)", document.read_text(), flags=re.MULTILINE))
        assert {"dev", "test", "test-lowest"} <= shown <= targets

    def test_every_room_that_the_readme_names_is_one(self) -> None:
        text = README.read_text().partition("## Development")[2]
        rooms = re.findall(r"`([a-z_]+)/?`(?= →|\n)", text)
        assert len(rooms) > 5
        for room in rooms:
            package = ROOT / "woodpecker_vault" / room
            assert package.is_dir() or package.with_suffix(".py").is_file(), room


class TestPolicy:
    """The policy in the README, given to a token that may do nothing else."""

    @pytest.fixture
    def halves(self) -> list[str]:
        (policy,) = blocks(README, "hcl")
        return policy.strip().split("\n\n")

    async def test_the_first_half_is_enough_to_answer_pipelines_but_not_to_write(
        self,
        *,
        halves: list[str],
        folder: Path,
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
        repo_id: int,
    ) -> None:
        await admin.put(f"woodpecker/repo/{repo_id}/x", "x-value")
        token = await admin.token(halves[0], name="readme-reading")
        async with serving(folder, settings(key, bao, vault_auth={"token": token})) as service:
            client = Client(session, service.url, key)
            ready = await client.raw("GET", "/readyz", None, {})
            assert ready.status == 200, ready.body
            assert "x" in await client.secrets(repo={"id": repo_id})
            secret = {"name": "y", "value": "y-value", "events": ["push"]}
            assert (await client.send("POST", f"/repo/{repo_id}/secrets", secret)).status == 403

    async def test_both_halves_are_enough_for_all_of_the_alpha_form(
        self,
        *,
        halves: list[str],
        folder: Path,
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
        repo_id: int,
    ) -> None:
        token = await admin.token("\n".join(halves), name="readme-writing")
        for delete in ("soft", "destroy"):
            document = settings(key, bao, vault_auth={"token": token}, secrets={"delete": delete})
            async with serving(folder, document) as service:
                client = Client(session, service.url, key)
                path, name = f"/repo/{repo_id}/secrets", f"by-{delete}"
                secret = {"name": name, "value": "one-value", "events": ["push"], "images": ["alpine"], "note": "n"}
                statuses = [
                    (await client.send("POST", path, secret)).status,
                    (await client.send("GET", path)).status,
                    (await client.send("PUT", f"{path}/{name}", {**secret, "value": "two", "events": ["tag"]})).status,
                    (await client.send("GET", f"{path}/{name}")).status,
                    (await client.send("DELETE", f"{path}/{name}")).status,
                ]
                assert statuses == [201, 200, 200, 200, 204]


class TestAdminsCommands:
    async def test_the_readmes_commands_add_the_secret_that_it_says(
        self, tmp_path: Path, bao: OpenBao, admin: Admin, client: Client
    ) -> None:
        (commands,) = [block for block in blocks(README, "sh") if "bao kv" in block]
        (repo,) = set(re.findall(r"woodpecker/repo/(\d+)/npm_token", commands))
        environment = {
            "BAO_ADDR": bao.address,
            "BAO_TOKEN": bao.token,
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        finished = await run("/bin/sh", "-ec", commands, environment=environment)
        assert finished.code == 0, finished.err
        try:
            for branch in ("main", "release/1.0"):
                given = await client.secrets(repo={"id": int(repo)}, event="push", branch=branch)
                assert given["npm_token"]["value"] == "s3cret"
                assert given["npm_token"]["events"] == ["push", "tag"]
            assert "npm_token" not in await client.secrets(repo={"id": int(repo)}, event="push", branch="feature")
            assert "npm_token" not in await client.secrets(repo={"id": int(repo)}, event="pull_request")
        finally:
            await admin.call("DELETE", f"secret/metadata/woodpecker/repo/{repo}/npm_token")


class TestLoggingIn:
    """The commands under "Logging in to Vault", as an admin types them, and the service that then logs in."""

    @pytest.fixture
    async def typed(self, tmp_path: Path, bao: OpenBao, admin: Admin) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
        """Type the block that has this in it, in a folder with the README's policy; then undo it."""
        (policy,) = blocks(README, "hcl")
        tmp_path.joinpath("policy.hcl").write_text(policy)
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
        environment = {
            "BAO_ADDR": bao.address,
            "BAO_TOKEN": bao.token,
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

        async def type_block(word: str) -> str:
            (commands,) = [block for block in blocks(README, "sh") if word in block]
            # Vault is in no pod here, where it would find these.
            outside = (
                "kubernetes_host=https://kubernetes.default.svc kubernetes_ca_cert=@ca.pem disable_local_ca_jwt=true"
            )
            commands = commands.replace(outside.partition(" ")[0], outside)
            finished = await run(
                "/bin/sh", "-ec", f"cd {shlex.quote(str(tmp_path))}\n{commands}", environment=environment
            )
            assert finished.code == 0, finished.err
            return finished.out

        yield type_block
        for mount in ("approle", "kubernetes"):
            await admin.call("DELETE", f"sys/auth/{mount}")
        await admin.call("DELETE", "sys/policies/acl/woodpecker-vault")

    def auth(self, method: str, folder: Path) -> dict[str, Any]:
        """The README's table for this method, with its files in the folder."""
        tables = [tomllib.loads(text).get("vault", {}).get("auth", {}) for text in blocks(README, "toml")]
        (table,) = [table for table in tables if table.get("method") == method]
        return {key: str(folder / Path(value).name) if key.endswith("_file") else value for key, value in table.items()}

    async def test_by_approle_the_service_answers(
        self,
        *,
        tmp_path: Path,
        typed: Callable[[str], Awaitable[str]],
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
        repo_id: int,
    ) -> None:
        await typed("auth enable approle")
        await admin.put(f"woodpecker/repo/{repo_id}/x", "x-value")
        document = settings(key, bao)
        document["vault.auth"] = self.auth("approle", tmp_path)
        async with serving(tmp_path, document) as service:
            client = Client(session, service.url, key)
            assert (await client.secrets(repo={"id": repo_id}))["x"]["value"] == "x-value"

    async def test_behind_an_agent_the_service_answers(
        self,
        *,
        tmp_path: Path,
        typed: Callable[[str], Awaitable[str]],
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
        repo_id: int,
    ) -> None:
        await typed("auth enable approle")
        _, answer = await admin.call("POST", "auth/approle/role/woodpecker-vault/secret-id", {})
        (tmp_path / "secret-id").write_text(answer["data"]["secret_id"])
        await admin.put(f"woodpecker/repo/{repo_id}/x", "x-value")
        (configuration,) = blocks(README, "conf")
        configuration, replaced = re.subn(
            r'(?<=^  address = )"https://[^"]+"', f'"{bao.address}"', configuration, flags=re.MULTILINE
        )
        assert replaced == 1
        document = settings(key, bao, vault={"address": f"unix://{tmp_path}/agent.sock"})
        document["vault.auth"] = self.auth("none", tmp_path)
        async with agent(tmp_path, configuration, "agent.sock"), serving(tmp_path, document) as service:
            client = Client(session, service.url, key)
            assert (await client.secrets(repo={"id": repo_id}))["x"]["value"] == "x-value"

    async def test_for_kubernetes_there_is_a_role_with_the_audience_that_the_settings_ask_for(
        self, *, tmp_path: Path, typed: Callable[[str], Awaitable[str]], admin: Admin
    ) -> None:
        await typed("auth enable kubernetes")
        auth = self.auth("kubernetes", tmp_path)
        _, answer = await admin.call("GET", f"auth/kubernetes/role/{auth['role']}")
        assert answer["data"]["audience"] == auth["audience"]
        assert answer["data"]["token_policies"] == ["woodpecker-vault"]
        (pod,) = blocks(README, "yaml")
        assert f"audience: {auth['audience']}," in pod
        assert f"path: {Path(auth['jwt_file']).name}," in pod


class TestChangelog:
    def test_it_names_this_version_or_what_is_unreleased(self) -> None:
        headings = re.findall(r"^## \[?([^\]\s]+)\]?", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
        assert headings
        assert headings[0] in {"Unreleased", __version__}
