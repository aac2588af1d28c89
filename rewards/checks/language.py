"""Which language a text is written in, by langdetect, the same every time.

langdetect draws n-grams at random, from a seed that its users set on a class, for everybody in the process. Here a
factory of our own has the seed, and its profiles in the order of their names, not of the folder. What langdetect does
character by character is done by words here, to the same result in a fifth to a third of the time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from langdetect.detector import Detector
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
from langdetect.lang_detect_exception import LangDetectException
from langdetect.utils.ngram import NGram

SEED = 0
"""IFEval's."""


_SPACES = re.compile(" {2,}")
_LETTER_AND_MARK = "\u0300"
"""The first character that langdetect's clean-up looks for."""
_LONG = 30
"""Characters of words that are not kept."""


class _Normal(dict):
    """For `str.translate`: langdetect's form of each character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = form = NGram.normalize(chr(code))
        return form


_NORMAL = _Normal()


class _ByWords(Detector):
    """langdetect's detector, with its n-grams taken word by word: they never reach across a space."""

    def append(self, text: str) -> None:
        if "://" in text:
            text = self.URL_RE.sub(" ", text)
        if "@" in text:
            text = self.MAIL_RE.sub(" ", text)
        if not text.isascii():
            text = NGram.normalize_vi(text)
        self.text = _SPACES.sub(" ", text[: self.max_text_length])

    def cleaning_text(self) -> None:
        if self.text and max(self.text) >= _LETTER_AND_MARK:
            super().cleaning_text()

    def _extract_ngrams(self) -> list[str]:
        *words, last = self.text.translate(_NORMAL).split(" ")
        found: list[str] = []
        for word in words:
            if word:
                found += _kept_ngrams(word + " ") if len(word) <= _LONG else _ngrams(word + " ")
        return found + _ngrams(last)

    def _init_probability(self) -> np.ndarray:
        return np.full(len(self.langlist), 1.0 / len(self.langlist))

    def _update_lang_prob(self, prob: np.ndarray, word: str, alpha: float) -> bool:
        prob *= alpha / self.BASE_FREQ + _profile(word)
        return True

    def _normalize_prob(self, prob: np.ndarray) -> float:
        prob /= sum(prob.tolist())  # numpy adds in another order
        return float(prob.max())


def _ngrams(word: str) -> list[str]:
    """Those that langdetect has profiles of. Within a word of capitals it takes none."""
    known, grams, found, capitals, last = _factory().word_lang_prob_map, " ", [], False, " "
    for sign in word:
        grams = grams[-2:] + sign
        capitals = sign.isupper() and (capitals or last.isupper())
        last = sign
        if not capitals:
            found += [gram for size in range(1, len(grams) + 1) if (gram := grams[-size:]) != " " and gram in known]
    return found


@lru_cache(maxsize=20_000)
def _profile(gram: str) -> np.ndarray:
    """How frequent it is in each language."""
    return np.array(_factory().word_lang_prob_map[gram])


_kept_ngrams = lru_cache(maxsize=20_000)(_ngrams)


class Undetected(Exception):
    """The text has nothing that tells a language, such as digits alone."""


@lru_cache(maxsize=1)
def _factory() -> DetectorFactory:
    """Takes half a second, and about 50 MiB."""
    factory = DetectorFactory()
    profiles = sorted(path for path in Path(PROFILES_DIRECTORY).iterdir() if not path.name.startswith("."))
    factory.load_json_profile([path.read_text(encoding="utf-8") for path in profiles])
    factory.set_seed(SEED)  # of this one: it hides the class's
    return factory


def languages() -> frozenset[str]:
    """The codes that can be told: ISO 639-1, and zh-cn and zh-tw."""
    return frozenset(_factory().langlist)


@lru_cache(maxsize=1024)  # instructions about one text ask for it several times
def language(text: str) -> str:
    """The code of the language that is most probable, of at most the first 10,000 characters.

    Raises:
        Undetected: none can be told.
    """
    detector = _ByWords(_factory())
    detector.append(text)
    try:
        found = detector.detect()
    except LangDetectException as error:
        raise Undetected(f"its language cannot be told: {error}") from None
    if found == detector.UNKNOWN_LANG:
        raise Undetected("its language cannot be told: none is probable")
    return found
