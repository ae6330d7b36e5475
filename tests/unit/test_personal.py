"""Personal data and secrets: what is found, what only looks like it, and what is shown of it."""

from __future__ import annotations

from itertools import pairwise

import phonenumbers
import pytest
from faker import Faker
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.curate.findings import Finding, disjoint, masked
from outcross.curate.personal import KINDS, find_personal
from outcross.curate.secrets import find_secrets


def kinds(text: str) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in find_personal(text)]


FOUND = [
    ("write to Jane.Doe+x@acme-corp.co.uk.", "email", "Jane.Doe+x@acme-corp.co.uk"),
    ("call (415) 555-2671 today", "telephone number", "(415) 555-2671"),
    ("from abroad +44 20 7946 0958", "telephone number", "+44 20 7946 0958"),
    ("paid with 4111 1111 1111 1111.", "payment card", "4111 1111 1111 1111"),
    ("amex 3782-822463-10005", "payment card", "3782-822463-10005"),
    ("IBAN GB82 WEST 1234 5698 7654 32 please", "bank account", "GB82 WEST 1234 5698 7654 32"),
    ("SSN 536-22-1234", "social security number", "536-22-1234"),
    ("logged in from 81.2.69.142", "internet address", "81.2.69.142"),
    ("host 2a00:1450:4001:81b::200e up", "internet address", "2a00:1450:4001:81b::200e"),
]
LOOK_ALIKES = [
    "a @property of b@c, and 5 @ $3 each",
    "mail someone@example.com or x@mail.example.org",
    "git clone git@github.com:owner/name.git",
    "card 4111 1111 1111 1112, GB82 WEST 1234 5698 7654 33, SSN 000-12-3456",
    "localhost 127.0.0.1, router 192.168.0.1, documented 192.0.2.1 and 2001:db8::1",
    "version 1.2.3.4 at 12:30:45 on 2021-03-04 10:20:30",
    "pi is 3.141592653589793 and 1000000000 is 1,000,000,000",
    "2 + 3 = 5, 10 20 30 40 50 60 70, ISBN 978-3-16-148410-0",
    "the film's number is (212) 555-0142, and 2125550142 is a number",
]


@pytest.mark.parametrize(("text", "kind", "passage"), FOUND)
def test_personal_data_is_found_where_it_stands(text: str, kind: str, passage: str) -> None:
    (found,) = find_personal(text)
    assert (found.kind, found.text) == (kind, passage) and text[found.start : found.end] == passage and kind in KINDS


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert kinds(text) == []


def test_made_up_records_are_found_whole() -> None:
    fake = Faker("en_GB")
    Faker.seed(7)
    for _ in range(100):
        cards = (fake.credit_card_number("visa16"), fake.credit_card_number("mastercard"), fake.credit_card_number("amex"))
        for card in cards:
            assert kinds(f"pay with {card} now") == [("payment card", card)]
        for kind, value in (("email", fake.free_email()), ("bank account", fake.iban()), ("internet address", fake.ipv4_public())):
            assert kinds(f"note {value}, please") == [(kind, value)]


@pytest.mark.parametrize("region", ["GB", "DE", "FR", "JP", "IN", "BR", "ZA", "AU"])
def test_telephone_numbers_of_many_countries_are_found(region: str) -> None:
    number = phonenumbers.example_number(region)
    abroad = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    at_home = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    assert kinds(f"call {abroad} now") == [("telephone number", abroad)]
    assert [one.kind for one in find_personal(f"call {at_home} now", region)] == ["telephone number"]


@given(st.text(alphabet=st.sampled_from("@.0123456789-+() :abcdefGB"), max_size=60))
@settings(max_examples=300)
def test_findings_stand_in_the_text_in_order_and_do_not_overlap(text: str) -> None:
    for found in (find_personal(text), find_secrets(text)):
        assert all(text[one.start : one.end] == one.text and one.text for one in found)
        assert all(one.end <= other.start for one, other in pairwise(found))


def test_a_finding_is_shown_without_being_given_away() -> None:
    (found,) = find_personal("write to jane.doe@acme.org")
    assert masked(found) == "email ja… of 17 characters" and "doe" not in masked(found)
    sure, unsure, later = Finding("a", 2, 8, "xxxxxx"), Finding("b", 0, 3, "xxx"), Finding("c", 8, 9, "x")
    assert disjoint([sure, later, unsure]) == [sure, later]


LETTERS = "q7Xk2Vb9Lm4Rt8Yw3Zc6Nd1Hf5Jg0Ps" * 4
SECRETS = [
    (f"key ghp_{LETTERS[:36]} end", "GitHub Token", f"ghp_{LETTERS[:36]}"),
    (f"github_pat_{LETTERS[:82]}", "GitHub Token", f"github_pat_{LETTERS[:82]}"),
    ("id AKIAIOSFODNN7EXAMPLE", "AWS Access Key", "AKIAIOSFODNN7EXAMPLE"),
    (f"sk-proj-{LETTERS[:48]}", "OpenAI Token", f"sk-proj-{LETTERS[:48]}"),
    (f"sk-ant-api03-{LETTERS[:80]}", "Anthropic Token", f"sk-ant-api03-{LETTERS[:80]}"),
    (f"AIza{LETTERS[:35]}", "Google API Key", f"AIza{LETTERS[:35]}"),
    ("hf_" + "qXkVbLmRtYwZcNdHfJgPsQxKvBlMrTyWzC", "Hugging Face Token", "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"),
    ("xoxb-123456789012-abcdefghijkl", "Slack Token", "xoxb-123456789012-abcdefghijkl"),
    ("export DB_PASSWORD=s3cr3tpw99\n", "Secret Keyword", "s3cr3tpw99"),
    ("x = 1\npassword = 'hunter2x9!'\n", "Secret Keyword", "hunter2x9!"),
    ("postgres://admin:tr0ub4dor@db.host.net/x", "Basic Auth Credentials", "://admin:tr0ub4dor@"),
    ("salt = '9f86d081884c7d659a2feaa0c55ad015'", "Hex High Entropy String", "9f86d081884c7d659a2feaa0c55ad015"),
    (
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\nb",
        "Private Key",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ),
    (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
        "JSON Web Token",
        None,
    ),
]
HARMLESS = [
    "my password is hard to remember: yes, the secret: nobody knows",
    "api_key: 'your_api_key_here'  password = '<PASSWORD>'  token = os.environ['TOKEN12345']",
    "password: string\nsecret = get_secret('foo1234')\npassword = '********'",
    "postgres://user:password@localhost/db",
    "The characteristically uncharacteristic APARTMENTS of the keynote speaker's passengers",
    "id '123e4567-e89b-12d3-a456-426614174000' and 'abcdefghijklmnopqrstuvwxyz'",
    "eyJhbGciOi.not.json and https://en.wikipedia.org/wiki/Secret_key_(cryptography)",
]


@pytest.mark.parametrize(("text", "kind", "passage"), SECRETS)
def test_secrets_are_found_where_they_stand(text: str, kind: str, passage: str | None) -> None:
    (found,) = find_secrets(text)
    assert found.kind == kind and text[found.start : found.end] == found.text and passage in (None, found.text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_is_left_alone(text: str) -> None:
    assert find_secrets(text) == []


def test_long_degenerate_texts_are_read_to_their_end() -> None:
    assert find_secrets("sk-" * 50_000 + "password is " * 20_000 + "key=" * 20_000) == []
    assert [one.kind for one in find_personal("12 " * 5_000 + "a.b-" * 50_000 + " a@b-c.org")] == ["email"]
