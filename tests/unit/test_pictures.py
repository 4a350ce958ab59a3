"""The pictures show what the code does now."""

import xml.etree.ElementTree as ElementTree

from docs.make import pictures


def test_pictures_are_current():
    drawn = pictures.pictures()
    for name, text in drawn.items():
        ElementTree.fromstring(text)
        words = f"{name} is not current: run `python -m docs.make.pictures`"
        assert (pictures.IMAGES / name).read_text() == text, words
    assert {path.name for path in pictures.IMAGES.glob("*.svg")} == set(drawn)


def test_wider_lines_carry_more():
    plain, merged = pictures._entries(0), pictures._entries(0.5)
    num_users = len(pictures._USERS)
    last = num_users + pictures._NUM_ITEMS - 1
    assert not [key for key in plain if last in key]
    assert [key for key in merged if last in key]
    assert all(merged[key] <= value for key, value in plain.items())
