"""``python -m woodpecker_vault`` is the same as the ``woodpecker-vault`` command."""

from woodpecker_vault.cli import main

main()
