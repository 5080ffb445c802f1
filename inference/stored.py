"""What a recalibration is stored as: plain numbers and text, and the kind that they are of."""

from typing import Any


def check_kind(stored: dict[str, Any], kind: str) -> None:
    """Refuse what another class stored.

    Raises:
        ValueError: `stored` is of another kind.
    """
    if stored.get("kind") != kind:
        raise ValueError(
            f"Expected a stored recalibration of kind {kind!r}; got {stored.get('kind')!r}. Read "
            "it with the class that wrote it."
        )
