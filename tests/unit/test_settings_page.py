"""The settings' page is what the settings are."""

import pytest

from docs.make import settings as made
from egra_dist.config import Config
from egra_dist.config.base import Settings
from egra_dist.config.errors import known_keys
from egra_dist.sweep.space import Distribution, SchedulerSettings, SearchSpace


def sections(section: type[Settings]) -> set[type[Settings]]:
    below = [child for _, child in made._children(section)]
    return {section}.union(*(sections(child) for child in below))


def test_the_page_is_current():
    words = "docs/settings.md is not current: run `python -m docs.make.settings`"
    assert made.PAGE.read_text() == made.page(), words


@pytest.mark.parametrize(
    "section",
    [*sorted(sections(Config), key=str), Distribution, SchedulerSettings, SearchSpace],
    ids=lambda section: section.__name__,
)
def test_every_setting_has_words(section):
    words = made.field_words(section) | dict(made._children(section))
    assert [name for name in section.model_fields if not words.get(name)] == []


def test_every_setting_is_on_the_page():
    text = made.PAGE.read_text()
    for key in known_keys(Config):
        if not key.startswith("pretrain."):
            assert f"| `{key.rpartition('.')[2]}` | [section]" in text or f'id="{key}"' in text
