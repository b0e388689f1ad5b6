"""The operator's commands: one file each; parse, ask, print.

The only place with sentences and exit codes.  Everything that decides is
elsewhere; what a command shows comes from the brain, typed (``hostd.requests``).
"""
