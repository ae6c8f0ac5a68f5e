"""Logging in as a service account: Vault asks Kubernetes about the token, here an endpoint of the test's own."""

import json
import string
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from hvac.exceptions import Forbidden
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import Admin
from tests.vault.logins import enabled, known, login_adapter, signed_jwt, write
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.logins.kubernetes import Kubernetes, audiences

KEY = ec.generate_private_key(ec.SECP256R1())
UID = "b7f0c1de-0000-4000-8000-000000000001"


class Reviews:
    """The endpoint of Kubernetes that Vault asks: it remembers what it was asked, and trusts ``trusted``."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reviewers: list[str] = []
        self.trusted = ""
        self.host = ""

    async def answer(self, request: web.Request) -> web.Response:
        """``POST /apis/authentication.k8s.io/v1/tokenreviews``."""
        review = await request.json()
        self.asked.append(review["spec"])
        self.reviewers.append(request.headers["Authorization"])
        user = {"username": "system:serviceaccount:ci:woodpecker-vault", "uid": UID, "groups": []}
        good = {"authenticated": True, "user": user, "audiences": review["spec"].get("audiences")}
        bad = {"authenticated": False, "error": "not one of ours"}
        known_here = review["spec"]["token"] == self.trusted
        return web.json_response({**review, "status": good if known_here else bad}, status=201)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve on :attr:`host` until the block ends."""
        application = web.Application()
        application.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def reviews() -> AsyncIterator[Reviews]:
    reviews = Reviews()
    async with reviews.listening():
        yield reviews


@pytest.fixture
async def mount(admin: Admin, repo_id: int, reviews: Reviews) -> AsyncIterator[str]:
    """An auth method with the role ``ci``."""
    settings = {
        "kubernetes_host": reviews.host,
        "kubernetes_ca_cert": trustme.CA().cert_pem.bytes().decode(),
        "disable_local_ca_jwt": True,
        "token_reviewer_jwt": "the-reviewers-jwt",
    }
    async with enabled(admin, "kubernetes", f"kubernetes-{repo_id}", **settings) as mount:
        await write(
            admin,
            f"auth/{mount}/role/ci",
            bound_service_account_names=["woodpecker-vault"],
            bound_service_account_namespaces=["ci"],
            audience="vault",
            token_policies=["ci"],
            token_ttl="5m",
        )
        yield mount


def projected(aud: Any) -> str:
    """A service account's token as Kubernetes projects it."""
    account = {"namespace": "ci", "serviceaccount": {"name": "woodpecker-vault", "uid": UID}}
    return signed_jwt(KEY, aud=aud, sub="system:serviceaccount:ci:woodpecker-vault", **{"kubernetes.io": account})


async def test_it_gives_a_token_of_the_role_and_vault_asks_kubernetes_about_the_audience(
    bao: OpenBao, admin: Admin, mount: str, reviews: Reviews, tmp_path: Path
) -> None:
    reviews.trusted = projected(["vault"])
    file = tmp_path / "token"
    file.write_text(reviews.trusted)
    async with login_adapter(bao) as adapter:
        grant = await Kubernetes(mount=mount, role="ci", jwt_file=str(file), audience="vault").login(adapter)
    assert (grant.lease, grant.renewable, grant.ours) == (300, True, True)
    found = await known(admin, grant)
    assert "ci" in found["policies"]
    assert found["meta"]["service_account_name"] == "woodpecker-vault"
    assert reviews.asked == [{"token": reviews.trusted, "audiences": ["vault"]}]
    assert reviews.reviewers == ["Bearer the-reviewers-jwt"]


async def test_one_that_kubernetes_replaced_is_read_anew(
    bao: OpenBao, mount: str, reviews: Reviews, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(projected(["vault"]))
    method = Kubernetes(mount=mount, role="ci", jwt_file=str(file))
    reviews.trusted = projected(["vault", "other"])
    async with login_adapter(bao) as adapter:
        with pytest.raises(Forbidden):
            await method.login(adapter)
        file.write_text(reviews.trusted)
        assert (await method.login(adapter)).token


@pytest.mark.parametrize("aud", ["https://kubernetes.default.svc", ["a", "b"], [], None, 5])
async def test_one_for_another_audience_is_not_even_sent(
    bao: OpenBao, mount: str, reviews: Reviews, tmp_path: Path, aud: Any
) -> None:
    reviews.trusted = projected(aud)
    file = tmp_path / "token"
    file.write_text(reviews.trusted)
    async with login_adapter(bao) as adapter:
        with pytest.raises(LoginRefused, match="project one") as caught:
            await Kubernetes(mount=mount, role="ci", jwt_file=str(file), audience="vault").login(adapter)
    assert "'vault'" in caught.value.detail
    for name in aud if isinstance(aud, list) else [aud] if isinstance(aud, str) else ["no audience"]:
        assert name in caught.value.detail
    assert not reviews.asked
    for part in reviews.trusted.split("."):
        assert part not in f"{caught.value.detail} {caught.value.cause}"


async def test_what_is_no_jwt_is_not_sent_where_an_audience_is_asked_for(bao: OpenBao, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hvs.something-else")
    async with login_adapter(bao) as adapter:
        with pytest.raises(LoginRefused, match="no JWT") as caught:
            await Kubernetes(role="ci", jwt_file=str(file), audience="vault").login(adapter)
    assert "something-else" not in f"{caught.value.detail} {caught.value.cause} {caught.value.__cause__}"


class TestAudiences:
    @given(st.text(), st.integers(0, 3))
    def test_one_alone_and_in_a_list_are_the_same_whatever_the_padding(self, name: str, more: int) -> None:
        padding = "x" * more
        assert audiences(_token({"aud": name, "jti": padding})) == [name]
        assert audiences(_token({"aud": [name], "jti": padding})) == [name]

    @given(st.lists(st.text()))
    def test_all_of_a_list_are_found(self, names: list[str]) -> None:
        assert audiences(_token({"aud": names})) == names

    @pytest.mark.parametrize("claims", [{}, {"aud": None}, {"aud": 5}, {"aud": {}}, {"aud": [5, None, ["vault"]]}])
    def test_what_is_no_text_is_no_audience(self, claims: dict[str, Any]) -> None:
        assert audiences(_token(claims)) == []

    @given(st.one_of(st.text(), st.text(string.ascii_letters + string.digits + "-_.="), st.binary().map(str)))
    @pytest.mark.parametrize("shape", ["{}", "a.{}.b", "{}.{}.{}", ".{}"])
    def test_anything_else_is_a_value_error_that_does_not_show_it(self, shape: str, text: str) -> None:
        jwt = shape.replace("{}", text)
        with pytest.raises(ValueError, match=r"^not a JWT$") as caught:
            audiences(jwt)
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize("payload", [b"", b"[]", b"5", b'"aud"', b"{", b"\xff", b"[" * 100_000])
    def test_so_is_a_payload_that_is_no_table(self, payload: bytes) -> None:
        with pytest.raises(ValueError, match=r"^not a JWT$"):
            audiences(f"e30.{urlsafe_b64encode(payload).decode()}.sig")


def _token(claims: dict[str, Any]) -> str:
    payload = urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.signature"
