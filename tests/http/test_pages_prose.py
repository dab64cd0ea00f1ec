"""Reports that are written in Markdown, on a page."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from evergreen.http.pages.prose import html

ALLOWED = {"h3", "h4", "h5", "h6", "p", "ul", "li", "pre", "code", "strong", "em"}
TABLE = {"div", "table", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


pieces = st.sampled_from(
    ["#", "## ", "|", "\n", "| - |", "|---|", "```", "**", "*", "`", "- ", "1. ", "![x](y)", "[a](b)"]
)


@given(
    st.lists(pieces | st.sampled_from(["<script>", "&lt;", '" onclick="', "{0}", "%s"]) | st.text(max_size=8)).map(
        "".join
    )
)
def test_whatever_is_written_only_our_tags_come_of_it_and_they_nest(text: str) -> None:
    found = Tags(str(html(text)))
    assert found.open == []
    assert found.seen <= ALLOWED | TABLE
    assert found.attributes <= {"scope", "class", "tabindex", "role", "aria-label"}


def test_a_report_as_recipes_write_it() -> None:
    said = html(
        "# Report: forest\n\n**98 % right** on 34\nheld-out texts.\n\n| intent | recall |\n| --- | ---: |\n| on | 90 % |\n"
        "\n![Intents](intents.png)\n\n1. first\n   goes on\n2. second\n\n```\n<raw>\n```\n"
    )
    assert said == (
        "<h3>Report: forest</h3><p><strong>98 % right</strong> on 34 held-out texts.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="intent, recall"><table class="small"><thead><tr>'
        '<th scope="col">intent</th><th scope="col">recall</th></tr></thead><tbody>'
        '<tr><th scope="row">on</th><td>90 %</td></tr></tbody></table></div>'
        "<ul><li>first goes on</li><li>second</li></ul><pre>&lt;raw&gt;</pre>"
    )
