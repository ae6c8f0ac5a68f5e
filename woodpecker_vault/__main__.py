"""The ``woodpecker-vault`` command, and ``python -m woodpecker_vault``."""

import signal


def main() -> None:
    """Run the command line, deaf to SIGHUP from here on unless a command listens for it."""
    # Before anything else is even imported: a reload that is asked for during the start must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from woodpecker_vault import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
