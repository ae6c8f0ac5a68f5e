"""``method = "aws"``: the IAM identity that this process has in AWS, proven by a request to STS that it signs."""

import asyncio
from importlib.util import find_spec
from typing import Annotated, Literal, Self

from hvac.api.auth_methods import Aws as AwsApi
from pydantic import Field, model_validator
from typing_extensions import override

from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.logins.method import Grant, Method, Mount
from woodpecker_vault.vault.transport import Adapter


class Aws(Method):
    """What botocore finds: the environment, a profile, a web identity, the container's or the instance's role.

    Without a ``role``, for the one that is called as the IAM principal. ``header_value`` is what the mount's
    ``iam_server_id_header_value`` says, if it does.
    """

    method: Literal["aws"] = "aws"
    mount: Mount = "aws"
    role: str = ""
    region: Annotated[str, Field(min_length=1)] = "us-east-1"
    header_value: str = ""

    @model_validator(mode="after")
    def _with_botocore(self) -> Self:
        if find_spec("botocore") is None:
            raise ValueError('method = "aws" needs botocore: pip install "woodpecker-vault[aws]"')
        return self

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in with the keys that botocore finds now."""
        access_key, secret_key, session_token = await asyncio.to_thread(_keys)
        return Grant.from_login(
            await AwsApi(adapter).iam_login(
                access_key,
                secret_key,
                session_token,
                header_value=self.header_value or None,
                role=self.role,
                use_token=False,
                region=self.region,
                mount_point=self.mount,
            )
        )


def _keys() -> tuple[str, str, str | None]:
    """Access key, secret key and session token; asks AWS if they are to be had there, and blocks meanwhile.

    Raises:
        Unavailable: there are none now.
    """
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - an extra: only who logs in by AWS needs it
    from botocore.session import Session  # noqa: PLC0415 - the same

    try:
        found = Session().get_credentials()
        if found is None:
            raise Unavailable(
                "The service cannot log in to Vault: there are no AWS credentials, neither in the environment nor in a"
                " profile, and this is no container or instance with a role."
            )
        frozen = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise Unavailable(
            "The service cannot log in to Vault: AWS does not give it credentials.", cause=type(error).__name__
        ) from error
    return frozen.access_key, frozen.secret_key, frozen.token
