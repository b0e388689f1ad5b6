"""How a check says that a rule is broken, or that it cannot be tried here.

Decides nothing.
"""


class Violation(Exception):
    """The agent broke the rule: what was expected, and what came."""

    def __init__(self, expected: str, came: str, evidence: str = "") -> None:
        super().__init__(f"expected {expected}; came {came}")
        self.expected, self.came, self.evidence = expected, came, evidence


class Untried(Exception):
    """The rule cannot be tried here: the reason, one sentence."""
