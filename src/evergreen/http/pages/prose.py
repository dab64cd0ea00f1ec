"""A report as a person wrote it (Markdown), made into a part of a page: headings, tables, lists, emphasis; all else is text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup, escape

_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*")
_HEADING = re.compile(r"(#{1,4})\s+(.*)")
_ITEM = re.compile(r"(?:[-*+]|\d+[.)])\s+(.*)")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_TAGS = ("code", "strong", "em")


def html(text: str) -> Markup:
    """Return a text's blocks; nothing in it becomes markup but what is known here. Links and pictures are left out.

    >>> str(html("# Report\\n\\n**98 %** <right>\\n\\n- `a`"))
    '<h3>Report</h3><p><strong>98 %</strong> &lt;right&gt;</p><ul><li><code>a</code></li></ul>'
    """
    lines = [_PICTURE.sub("", line).rstrip() for line in text.splitlines()]
    return Markup("").join(_blocks(lines))


def _blocks(lines: Sequence[str]) -> Iterator[Markup]:
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if not line:
            at += 1
        elif line.startswith("```"):
            end = _until(lines, at + 1, lambda x: x.strip().startswith("```"))
            yield Markup("<pre>{}</pre>").format("\n".join(lines[at + 1 : end]))
            at = end + 1
        elif found := _HEADING.fullmatch(line):
            tag = f"h{len(found[1]) + 2}"
            yield Markup("<{0}>{1}</{0}>").format(tag, _inline(found[2]))
            at += 1
        elif line.startswith("|") and at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1].strip()):
            end = _until(lines, at, lambda x: not x.strip().startswith("|"))
            yield _table([_cells(row) for row in (lines[at], *lines[at + 2 : end])])
            at = end
        elif _ITEM.fullmatch(line):
            end = _until(lines, at, lambda x: not x.strip())
            yield Markup("<ul>{}</ul>").format(Markup("").join(_items(lines[at:end])))
            at = end
        else:
            end = _until(lines, at + 1, lambda x: not x.strip() or x.lstrip().startswith(("#", "|", "```")))
            yield Markup("<p>{}</p>").format(_inline(" ".join(x.strip() for x in lines[at:end])))
            at = end


def _until(lines: Sequence[str], start: int, over: Callable[[str], bool]) -> int:
    return next((i for i in range(start, len(lines)) if over(lines[i])), len(lines))


def _items(lines: Sequence[str]) -> Iterator[Markup]:
    items: list[str] = []
    for line in lines:
        found = _ITEM.fullmatch(line.strip())
        if found or not items:
            items.append(found[1] if found else line.strip())
        else:
            items[-1] += f" {line.strip()}"
    return (Markup("<li>{}</li>").format(_inline(item)) for item in items)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def _table(rows: Sequence[Sequence[str]]) -> Markup:
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(_inline(cell)) for cell in rows[0])
    body = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            _inline(row[0]), Markup("").join(Markup("<td>{}</td>").format(_inline(cell)) for cell in row[1:])
        )
        for row in rows[1:]
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="small">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(", ".join(rows[0])[:60], head, body)


def _inline(text: str) -> Markup:
    """Escape a line; set code and emphasis.

    >>> str(_inline("a < `b` *c* [d](javascript:x)"))
    'a &lt; <code>b</code> <em>c</em> d'
    """
    out, at = Markup(""), 0
    text = _LINK.sub(r"\1", text)
    for found in _INLINE.finditer(text):
        tag, said = next((tag, said) for tag, said in zip(_TAGS, found.groups(), strict=True) if said is not None)
        out += escape(text[at : found.start()]) + Markup("<{0}>{1}</{0}>").format(tag, said)
        at = found.end()
    return out + escape(text[at:])
