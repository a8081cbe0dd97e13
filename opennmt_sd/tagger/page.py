"""A page that shows the entities of sentences in colour.

All of its text comes from files, a stranger's perhaps, and is escaped: words, types and title. Each
sentence runs in the direction of its first letter, so that Arabic beside English reads right. The
page loads nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from opennmt_sd.tagger.schemes import Entity, entities

# Light enough for black text.
COLOURS = ("#aee3f5", "#ffd9a0", "#c9eab0", "#f6c1d9", "#d9ccf5", "#f3ec9b", "#b8e6d8", "#e6d2bd")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }}
p {{ line-height: 2.2; margin: 0 0 .6em; overflow-wrap: anywhere; }}
mark {{
  padding: .3em .5em; border-radius: .35em; color: #000;
  -webkit-box-decoration-break: clone; box-decoration-break: clone;
}}
mark span {{ unicode-bidi: plaintext; }}
mark small {{ font-weight: bold; font-size: .75em; margin-inline-start: .5em; }}
{colours}
</style>
</head>
<body>
<h1 dir="auto">{title}</h1>
<main lang="{language}">
{body}
</main>
</body>
</html>
"""


def html(
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    title: str,
    *,
    language: str = "en",
    spaces: Sequence[Sequence[bool]] | None = None,
) -> str:
    """Return a page, a paragraph for each sentence.

    Args:
        sentences: words.
        tags: of the words, in any scheme.
        title: of the page.
        language: of the words, for the browser.
        spaces: whether a blank follows each word; None: always.
    """
    found = [entities(row) for row in tags]
    kinds = sorted({entity.type for row in found for entity in row})
    classes = {kind: f"t{number % len(COLOURS)}" for number, kind in enumerate(kinds)}
    body = [
        f'<p dir="auto">{"".join(_sentence(words, row, classes, blanks))}</p>'
        for words, row, blanks in zip(
            sentences, found, spaces or [[True] * len(words) for words in sentences]
        )
    ]
    return PAGE.format(
        title=escape(title),
        language=escape(language),
        colours="\n".join(f".t{n} {{ background: {c}; }}" for n, c in enumerate(COLOURS)),
        body="\n".join(body),
    )


def _sentence(
    words: Sequence[str], found: Sequence[Entity], classes: dict[str, str], spaces: Sequence[bool]
) -> Iterator[str]:
    done = 0
    for kind, start, end in found:
        yield _text(words, spaces, done, start)
        inside = _text(words, spaces, start, end)
        blank = " " * spaces[end - 1]
        # dir="auto" looks into <span>, and not into <bdi>: a type is no part of the sentence.
        yield (
            f'<mark class="{classes[kind]}"><span>{inside.rstrip(" ")}</span>'
            f"<small><bdi>{escape(kind)}</bdi></small></mark>{blank}"
        )
        done = end
    yield _text(words, spaces, done, len(words))


def _text(words: Sequence[str], spaces: Sequence[bool], start: int, end: int) -> str:
    return "".join(
        escape(word) + " " * space for word, space in zip(words[start:end], spaces[start:end])
    )
