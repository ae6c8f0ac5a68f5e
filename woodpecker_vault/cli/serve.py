"""``serve``: answer until told to stop."""

import asyncio
import logging
import sys
from collections.abc import Callable

from yarl import URL

from woodpecker_vault import __version__, config, telemetry
from woodpecker_vault.cli.descriptors import raise_limit
from woodpecker_vault.cli.loop import hangup, run
from woodpecker_vault.cli.reloading import Reloads
from woodpecker_vault.cli.wiring import StartError, running

log = logging.getLogger(__name__)


def serve(settings: config.Settings, read_again: Callable[[], config.Settings]) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code.

    Args:
        settings: all of them.
        read_again: reads them anew, and raises :exc:`~woodpecker_vault.config.ConfigError` if something is wrong now.
    """
    telemetry.configure(settings.log.level, settings.log.format, sys.stdout)
    raise_limit()
    try:
        run(_serve(settings, read_again))
    except StartError as error:
        print(f"woodpecker-vault: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: config.Settings, read_again: Callable[[], config.Settings]) -> None:
    reloads = Reloads()
    reloads.add(lambda: _compare(settings, read_again))
    with hangup(reloads.ask):
        async with running(settings, reloads) as url:
            vault = ",".join(map(_without_password, settings.vault.address.split(",")))
            log.info(
                "listening",
                extra={"url": url.removesuffix(settings.server.base_path), "version": __version__, "vault": vault},
            )
            try:
                await asyncio.Event().wait()
            finally:
                log.info("stopping; what is under way is answered first")


def _compare(settings: config.Settings, read_again: Callable[[], config.Settings]) -> None:
    """Say which settings are not what they were at the start: those need another start."""
    try:
        changed = config.differing(settings, read_again())
    except config.ConfigError as error:
        log.warning("the settings are wrong now; with them the service would not start", extra={"lines": error.lines})
        return
    if changed:
        log.warning("some settings have changed; they count from the next start on", extra={"settings": changed})


def _without_password(address: str) -> str:
    return address if address.startswith("unix:") else str(URL(address).with_user(None))
