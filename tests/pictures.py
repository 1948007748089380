"""What a picture of matplotlib says: it names each text of an SVG in a comment."""

from __future__ import annotations

from pathlib import Path


def assert_shows(picture: Path, *texts: str) -> None:
    """Fail unless each text stands in the picture, an SVG."""
    drawn = picture.read_text(encoding="utf-8")
    assert [text for text in texts if text not in drawn] == []
