"""The stories of ``tests/scenarios``: what is given, what goes wrong, what then happens."""

from pathlib import Path

import pytest

from hostd.sim import story

STORIES = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_still_ends_as_it_was_told(path: Path) -> None:
    """The core does today what the scenario says, line by line (rewrite: ``python -m hostd.sim story --rewrite``)."""
    told = story.read(path.read_text())
    assert story.tell(told) == told.expected


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_no_story_ends_in_harm(path: Path) -> None:
    """A rewritten story cannot smuggle in a broken invariant."""
    assert path.read_text().rstrip().endswith("== nothing wrong")


def test_each_of_the_eighteen_stories_is_told() -> None:
    """PROTOCOL.md section 8 lists eighteen counterexamples to earlier drafts."""
    assert {int(path.name[:2]) for path in STORIES if path.name[:2].isdigit()} == set(range(1, 19))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fencing sometimes\n", "line 1: fencing sometimes"),
        ("service web primary\n", "line 1: service web primary"),
        ("service web blue\n", "blue is nothing that a service can be"),
        ("fencing none\nat 1.0 explode a\n", "line 2: at 1.0 explode a: no such fault: explode"),
        ("at 1.0 pause a FREEZE\n", "pause"),
        ("weather fine\n", "line 1: weather is not known here"),
    ],
)
def test_a_story_that_cannot_be_read_says_where(text: str, complaint: str) -> None:
    """The line and what is wrong with it."""
    with pytest.raises(story.StoryError, match=complaint):
        story.read(text)
