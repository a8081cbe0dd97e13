"""The page: what stands in it, with input that is out to break it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from opennmt_sd.tagger.page import html

HOSTILE = (
    "<script>alert(1)</script>",
    "</mark></p><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">',
    "</title></style><!--",
    "{title}%s{0}",
    "&lt;",
    "red}} body {{ display: none",
)
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "h1", "main", "p", "mark", "span", "small",
    "bdi",
}  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@pytest.mark.parametrize("evil", HOSTILE)
def test_all_that_comes_from_files_is_text(evil: str) -> None:
    page = html(
        [["a", evil, "b"], [evil]],
        [["O", f"B-{evil}", f"B-{evil}"], ["O"]],
        evil,
        language=evil,
    )
    seen = Seen(page)
    assert seen.open == []
    assert {tag for tag, _ in seen.tags} == ALLOWED
    assert {name for _, attributes in seen.tags for name in attributes} <= {
        "lang", "dir", "class", "charset", "name", "content", "http-equiv",
    }  # fmt: skip
    assert seen.text["title"] == seen.text["h1"] == [evil]
    assert seen.text["bdi"] == [evil, evil]
    assert seen.text["span"] == [evil, "b"]
    assert [a["lang"] for tag, a in seen.tags if tag == "main"] == [evil]
    assert {a["class"] for tag, a in seen.tags if tag == "mark"} == {"t0"}
    assert evil not in "".join(seen.text["style"])


def test_words_entities_and_blanks() -> None:
    seen = html(
        [["Mary", "Smith", "(", "here", ")", "."], ["New", "York"]],
        [["B-PER", "I-PER", *"OOOO"], ["B-LOC", "E-LOC"]],
        "t",
        spaces=[[True, True, False, False, False, False], [True, False]],
    )
    assert (
        '<p dir="auto"><mark class="t1"><span>Mary Smith</span><small><bdi>PER</bdi></small></mark>'
        " (here).</p>" in seen
    )
    assert "<span>New York</span><small><bdi>LOC</bdi></small></mark></p>" in seen


def test_each_sentence_has_its_own_direction() -> None:
    page = html([["القاهرة"], ["London"]], [["B-LOC"], ["O"]], "t")
    assert page.count('<p dir="auto">') == 2
    # dir="auto" does not look into <bdi>: an entity stands outside of it.
    assert "<span>القاهرة</span><small><bdi>LOC" in page
