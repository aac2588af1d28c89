"""Which language a text is written in, by langdetect, the same every time.

langdetect draws n-grams at random, from a seed that its users set on a class, for everybody in the process. Here a
factory of our own has the seed, and its profiles in the order of their names, not of the folder.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
from langdetect.lang_detect_exception import LangDetectException

SEED = 0
"""IFEval's."""


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
    detector = _factory().create()
    detector.append(text)
    try:
        found = detector.detect()
    except LangDetectException as error:
        raise Undetected(f"its language cannot be told: {error}") from None
    if found == detector.UNKNOWN_LANG:
        raise Undetected("its language cannot be told: none is probable")
    return found
