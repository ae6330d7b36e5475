"""Links, and what makes some of them unsafe."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.curate.links import find_links

UNSAFE = [
    ("click javascript:alert(1) now", "javascript:alert(1)", "runs or opens"),
    ("data:text/html;base64,PHNjcmlwdD4=", "data:text/html;base64,PHNjcmlwdD4=", "runs or opens"),
    ("file:///etc/passwd", "file:///etc/passwd", "runs or opens"),
    ("go to http://203.0.113.9/login.", "http://203.0.113.9/login", "bare internet address 203.0.113.9"),
    ("http://3232235777/", "http://3232235777/", "bare internet address"),
    ("http://[2001:db8::1]/x", "http://[2001:db8::1]/x", "bare internet address"),
    ("https://bank.com@evil.org/", "https://bank.com@evil.org/", "user name"),
    ("http://раypal.com/x", "http://раypal.com/x", "mixes Cyrillic and Latin"),
    ("https://xn--80ak6aa92e.com/", "https://xn--80ak6aa92e.com/", "look like Latin"),
    ("see https://bit.ly/3x!", "https://bit.ly/3x", "shortener bit.ly"),
    ("get https://a.com/setup.exe, then", "https://a.com/setup.exe", "program (.exe)"),
    ("www.a.com/all.tar.gz", "www.a.com/all.tar.gz", "archive (.gz)"),
    ("http://[bad", "http://[bad", "no valid address"),
    ("[paypal.com](https://evil.org/login)", "https://evil.org/login", "labelled paypal.com and leads to evil.org"),
]
SAFE = [
    ("see https://en.wikipedia.org/wiki/Foo_(bar).", "https://en.wikipedia.org/wiki/Foo_(bar)"),
    ("(https://a.org/b)", "https://a.org/b"),
    ("[the docs](https://docs.python.org/3/)", "https://docs.python.org/3/"),
    ("[python.org](https://docs.python.org/3/)", "https://docs.python.org/3/"),
    ("https://münchen.de/ and", "https://münchen.de/"),
    ("https://xn--fiqs8s.cn", "https://xn--fiqs8s.cn"),
    ("https://github.com/a@b/c", "https://github.com/a@b/c"),
    ("www.example.com/page.html?x=1", "www.example.com/page.html?x=1"),
]


@pytest.mark.parametrize(("text", "link", "reason"), UNSAFE)
def test_an_unsafe_link_says_what_is_wrong_with_it(text: str, link: str, reason: str) -> None:
    (found,) = find_links(text)
    assert found.text == link == text[found.start : found.end] and reason in found.unsafe


@pytest.mark.parametrize(("text", "link"), SAFE)
def test_an_ordinary_link_is_found_and_let_be(text: str, link: str) -> None:
    (found,) = find_links(text)
    assert found.text == link == text[found.start : found.end] and found.unsafe == ""


@pytest.mark.parametrize(
    "text", ["", "no link: at all", "JavaScript: The Good Parts", "ratio data: text/plain is a type", "a//b c:\\d 1:2"]
)
def test_a_text_without_links_has_none(text: str) -> None:
    assert find_links(text) == []


@given(st.text(alphabet=st.sampled_from("htps:/.w@[]()xn-1а%data,;javscrip "), max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    found = find_links(text)
    assert all(text[one.start : one.end] == one.text for one in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
