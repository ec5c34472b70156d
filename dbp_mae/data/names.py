"""Names of files: as every system composes them, and several in one sentence."""

from unicodedata import normalize


def composed(name: str) -> str:
    """Return a name with its letters composed (NFC): some systems take an umlaut apart."""
    return normalize("NFC", name)


def more(found: list[str]) -> str:
    """Tell how many names have what a sentence says of the first of them."""
    others = len(found) - 1
    return f" ({others} more likewise)" if others else ""
