"""Decides, never does: no input or output, clock, dice, logging or threads.

Two doors: ``Node.step(now_ms, event)`` returns effects, ``Node.deadline()``
says when to come back.  Read ``node.py`` first.
"""
