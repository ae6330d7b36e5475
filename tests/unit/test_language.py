"""Which language a text is in."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from helpers import context, group

from outcross.curate import language
from outcross.curate.form import InLanguage
from outcross.curate.language import known_languages, language_of
from outcross.errors import ConfigError, MissingExtra
from outcross.types import Drop

SENTENCES = {
    "ar": "تناولنا العشاء أمس في مطعم صغير بالقرب من المحطة.",
    "cs": "Včera večer jsme jedli v malé restauraci blízko nádraží.",
    "de": "Gestern Abend haben wir im Garten gegrillt, und die Nachbarn kamen vorbei.",
    "el": "Χθες το βράδυ φάγαμε σε ένα μικρό εστιατόριο κοντά στον σταθμό.",
    "en": "Last night we ate in a small restaurant near the station.",
    "es": "Ayer por la noche cenamos en un pequeño restaurante cerca de la estación.",
    "fi": "Eilen illalla söimme pienessä ravintolassa aseman lähellä.",
    "fr": "Nous avons mangé dans un petit restaurant près de la gare hier soir.",
    "he": "אתמול בערב אכלנו במסעדה קטנה ליד התחנה.",
    "hi": "कल रात हमने स्टेशन के पास एक छोटे से रेस्तराँ में खाना खाया।",
    "it": "Ieri sera abbiamo cenato in un piccolo ristorante vicino alla stazione.",
    "ja": "昨日の夜、駅の近くの小さなレストランで食事をしました。",
    "ko": "어제 저녁에 역 근처의 작은 식당에서 밥을 먹었습니다.",
    "nl": "Gisteravond hebben we in een klein restaurant bij het station gegeten.",
    "pl": "Wczoraj wieczorem zjedliśmy kolację w małej restauracji koło dworca.",
    "pt": "Ontem à noite jantamos num pequeno restaurante perto da estação.",
    "ru": "Вчера вечером мы ужинали в маленьком ресторане возле вокзала.",
    "sv": "Igår kväll åt vi på en liten restaurang nära stationen.",
    "tr": "Dün akşam istasyonun yakınındaki küçük bir lokantada yemek yedik.",
    "zh": "昨天晚上我们在车站附近的一家小餐馆吃了饭。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_told_by_its_language(code: str) -> None:
    found, probability = language_of(SENTENCES[code])
    assert found == code and 0.5 < probability <= 1 and code in known_languages()


def test_what_has_no_letters_has_no_language() -> None:
    for text in ("", "123 + 456 = 579", "\n\t…", "💧"):
        assert language_of(text) == ("und", 0.0)
    assert not math.isnan(language_of("x")[1]) and language_of("\ud800 abc")[0]


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert language_of(SENTENCES["en"] * 50 + SENTENCES["ru"] * 1000) == language_of(SENTENCES["en"] * 50)


def test_the_curator_keeps_the_languages_asked_for_and_what_is_too_short_to_tell(tmp_path: Path) -> None:
    texts = [SENTENCES["en"], SENTENCES["de"], SENTENCES["fr"] * 2, "Ja.", "12", SENTENCES["zh"] * 3]
    kept, *drops = InLanguage(("en", "fr"), letters=40)(context(tmp_path), [group(*texts)])
    assert not isinstance(kept, Drop) and [one.text for one in kept.samples] == [texts[0], texts[2], "Ja.", "12"]
    assert [item.reason.partition(" with")[0] for item in drops if isinstance(item, Drop)] == ["language: de", "language: zh"]
    assert all(isinstance(item, Drop) and item.reason.endswith("not en or fr") for item in drops)


def test_an_unknown_language_is_refused_before_a_group_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not know the language 'eng'; did you mean 'en'"):
        next(InLanguage(("eng",))(context(tmp_path), iter(())))
    for wrong in ({"languages": ()}, {"languages": ("en",), "sure": 0}, {"languages": ("en",), "letters": 0}):
        with pytest.raises(ConfigError):
            InLanguage(**wrong)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    language._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtra, match=r"pip install 'outcross\[curate\]'"):
        language_of("some text")
