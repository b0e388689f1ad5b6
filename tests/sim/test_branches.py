"""What measures the core's branches sees what was reached and names what was not."""

from pathlib import Path

from hostd.sim import story
from tests.sim import branches

SCENARIOS = Path(__file__).parent.parent / "scenarios"


def told(name: str) -> None:
    story.tell(story.read((SCENARIOS / f"{name}.txt").read_text()))


def test_what_only_the_second_story_reaches_is_missing_after_the_first() -> None:
    """A takeover by the guard leaves the branches of fencing untouched; one with a device reaches them."""
    reports = branches.measured(
        {
            "guard": lambda: told("takeover-without-fencing"),
            "device": lambda: told("takeover-with-fencing"),
        }
    )
    before, after = (set(branches.missing(report, "fencing.py")) for report in reports)
    assert after < before


def test_a_branch_is_told_by_its_line() -> None:
    """File, number and text of where it begins and where it never goes."""
    lines = (branches.CORE / "reach.py").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.strip().startswith("if "))
    assert branches.told("reach.py", (number, number + 1)) == (
        f"  reach.py:{number} `{lines[number - 1].strip()}` never goes to {number + 1} `{lines[number].strip()}`"
    )
