"""All rules, in the order in which they are tried: what others build on comes first."""

from hostd.proving.findings import Rule
from hostd.proving.rules import (
    costs,
    crashes,
    cycle,
    leftovers,
    limits,
    machine,
    nodes,
    races,
    reasons,
    secrets,
    statics,
)

FAMILIES = (statics, cycle, leftovers, crashes, limits, races, machine, secrets, costs, nodes, reasons)

RULES: tuple[Rule, ...] = tuple(rule for family in FAMILIES for rule in family.RULES.rules)
