"""Tasks of reasoning-gym whose labels or verifiers are known to be bad, found by `docs/generate/verifiers.py`.

The library's version is pinned, and docs/verifiers.md has what the scan of it found.
"""

from __future__ import annotations

REFUSED = {
    "coin_flip": "its verifier pays 1 for 0, whatever the probability is",
    "game_of_life_halting": "its verifier pays 1 for any text where the answer is True",
    "syllogism": "one in eight of its labels is wrong",
}
"""Task -> why nobody should train on it."""

_IGNORES = "its verifier takes the answer out of a text and ignores what else is said there"
WEAK = {
    "fraction_simplification": _IGNORES,
    "gsm_symbolic": _IGNORES,
    "kakurasu": _IGNORES,
    "knights_knaves": _IGNORES,
    "letter_jumble": _IGNORES,
    "polynomial_equations": _IGNORES,
    "propositional_logic": "its verifier pays 0.25 for any word; ask for full scores (strict)",
    "quantum_lock": _IGNORES,
    "sokoban": _IGNORES,
    "spell_backward": _IGNORES,
    "survo": _IGNORES,
    "time_intervals": _IGNORES,
}
"""Task -> what its reward will not notice."""

_LITERAL = "what is not the literal of a list is worth 0"
GUARDED = {
    "binary_matrix": _LITERAL,
    "complex_arithmetic": "a number that is not finite is malformed",
    "n_queens": _LITERAL,
    "puzzle24": "the four numbers must be the problem's",
    "spiral_matrix": _LITERAL,
    "string_insertion": _LITERAL,
}
"""Task -> what `rewards.reasoning` adds to its verifier."""
