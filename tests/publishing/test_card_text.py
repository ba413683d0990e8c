"""Escaped text read by a Markdown parser that is not ours: what is shown is what was given, and nothing else."""

import html
import random
import re

import pytest
from markdown_it import MarkdownIt

from hf_transfer.publishing.card_text import LONGEST, Markdown, code, code_block, escape, finalise, plain
from tests.publishing.nasty import NASTY

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def cells(page: str) -> list[str]:
    """Returns the text of the cells of a page that is a table, and refuses any tag within them."""
    shown = PARSER.render(page)
    found = re.findall(r"<td>(.*?)</td>", shown, re.DOTALL)
    assert shown.count("<tr>") == 2
    assert not [cell for cell in found if "<" in cell or ">" in cell]
    return [html.unescape(cell) for cell in found]


def random_text(generator: random.Random) -> str:
    alphabet = "\\`*_{}[]()#+-.!|~<>&$@:;\"'=/ \n\tab1hws"
    return "".join(generator.choice(alphabet) for _ in range(generator.randint(1, 30)))


@pytest.mark.parametrize("name", NASTY)
def test_a_cell_shows_the_name_and_nothing_else(name: str):
    assert cells(f"| a | b |\n|---|---|\n| {escape(name)} | end |") == [plain(name), "end"]


@pytest.mark.parametrize("name", NASTY)
def test_a_paragraph_and_a_list_show_the_name_and_nothing_else(name: str):
    assert html.unescape(PARSER.render(f"word {escape(name)} word")) == f"<p>word {plain(name)} word</p>\n"
    item = html.unescape(PARSER.render(f"- {escape(name)}"))
    assert item == f"<ul>\n<li>{plain(name)}</li>\n</ul>\n"


def test_whatever_punctuation_is_shown_as_it_is():
    generator = random.Random(0)
    for _ in range(2000):
        text = random_text(generator)
        assert cells(f"| a | b |\n|---|---|\n| {escape(text)} | end |") == [plain(text), "end"], repr(text)
        shown = html.unescape(PARSER.render(f"- {escape(text)}")) if plain(text) else ""
        assert not shown or shown == f"<ul>\n<li>{plain(text)}</li>\n</ul>\n", repr(text)


@pytest.mark.parametrize("name", NASTY)
def test_code_shows_the_name_and_nothing_else(name: str):
    shown = PARSER.render(f"word {code(name)} word")
    inside = re.fullmatch(r"<p>word <code>(.*)</code> word</p>\n", shown)
    assert inside is not None
    assert html.unescape(inside[1]) == plain(name)
    block = PARSER.render(code_block(f"first\n{name}\n```\nlast", "python"))
    assert block.startswith('<pre><code class="language-python">first\n')
    assert block.endswith("```\nlast\n</code></pre>\n")
    assert block.count("<pre>") == 1


def test_nothing_that_is_linked_by_github_stays_a_link():
    for text in ("https://example.org", "http://example.org", "www.example.org", "WWW.example.org", "ftp://a.b"):
        assert not re.search(r"(?i)(https?|ftp):|www\.", escape(text))
    assert "@" not in escape("me@example.org")


def test_plain_names_what_cannot_be_seen():
    assert plain("a\u202eb\x00c\udcff") == "a[U+202E]b[U+0000]c[U+DCFF]"
    assert plain(" a \r\n\t b\u2028c ") == "a b c"
    assert plain("می\u200cخواهم") == "می\u200cخواهم"
    assert len(plain("x" * 1000)) == LONGEST
    assert plain("x" * 1000).endswith("…")
    for name in NASTY:
        plain(name).encode("utf-8")
        assert "\n" not in plain(name)


def test_ordinary_names_stay_readable():
    for name in ("t-shirt", "café au lait", "0.5", "Ford F-150 (2012)", "50 %", "猫", "it's"):
        assert escape(name) == name
    assert escape("red_cell") == "red\\_cell"


def test_a_template_escapes_all_but_markdown_and_numbers():
    assert finalise("<b>") == "&lt;b&gt;"
    assert finalise(Markdown("<b>")) == "<b>"
    assert (finalise(3), finalise(0.5)) == (3, 0.5)
