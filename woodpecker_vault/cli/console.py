"""Output for people: a table in colour on a terminal, plain and unshortened elsewhere."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 240


def console() -> Console:
    """Standard output."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=_PLAIN_WIDTH)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, plain: bool) -> Table:
    """A table; no cell is ever cut off."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.ASCII2 if plain else box.ROUNDED)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))  # as it is: rich would read a plain string as markup
    return made
