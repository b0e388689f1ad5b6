"""Faulty: it writes data that two must never write at once, and does not look whether another does."""

BREAKS = ("never-both",)
EXCLUSIVE_STORAGE = True
