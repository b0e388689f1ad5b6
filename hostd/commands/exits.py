"""Exit codes of all commands (INTERFACES.md section 1)."""

import enum


class ExitCode(enum.IntEnum):
    DONE = 0  # or healthy
    NO = 1  # unhealthy, check failed, not taken
    WRONG_USE = 2  # or bad configuration
    UNREACHABLE = 3  # the daemon does not answer
    UNSAFE = 4  # refused for safety; the text names the override, if there is one
