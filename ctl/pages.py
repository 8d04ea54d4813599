"""What a command found, in whichever form was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctl.options import Format
from ctl.render import Table, listed
from ctl.screen import Screen


@dataclass(frozen=True, slots=True)
class Page:
    """What a command found: items and their names for programs, a table or lines for people."""

    kind: str
    items: tuple[dict[str, Any], ...]
    names: tuple[str, ...]
    people: Table | str

    def text(self, screen: Screen, form: Format) -> str:
        """In the format asked for."""
        if not form.is_table:
            return listed(self.kind, self.items, self.names, form)
        return self.people if isinstance(self.people, str) else screen.table(self.people)
