"""Docstrings as a page shows them: ``:func:`name``` and ``Example::`` in Markdown's own terms."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|obj):`~?([^`]+)`")
LITERAL = re.compile(r"^Example::\n\n((?:(?: {4}.*)?\n?)+)", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Roles become code; an example becomes a fenced block."""

    def fenced(match: re.Match[str]) -> str:
        lines = [line[4:] for line in match[1].rstrip().splitlines()]
        return "\n".join(["**Example**", "", "```python", *lines, "```", ""])

    return LITERAL.sub(fenced, ROLE.sub(r"`\1`", text))


class Roles(Extension):
    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
