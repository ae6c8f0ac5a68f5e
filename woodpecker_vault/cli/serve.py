"""``serve``: answer until told to stop."""

import asyncio
import logging
import sys

from woodpecker_vault import __version__, config, telemetry
from woodpecker_vault.cli.loop import run
from woodpecker_vault.cli.wiring import StartError, running

log = logging.getLogger(__name__)


def serve(settings: config.Settings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code."""
    telemetry.configure(settings.log.level, settings.log.format, sys.stdout)
    try:
        run(_serve(settings))
    except StartError as error:
        print(f"woodpecker-vault: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: config.Settings) -> None:
    async with running(settings) as url:
        log.info("listening", extra={"url": url, "version": __version__, "vault": settings.vault.address})
        try:
            await asyncio.Event().wait()
        finally:
            log.info("stopping; what is under way is answered first")
