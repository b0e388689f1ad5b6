"""Disks and filesystems: what is mounted and who holds it, mounting, unmounting, reservations.

For the agents ``filesystem``, ``nfs``, ``gfs`` and ``scsi_reservation`` first.  An author of another
may import it; it changes when they do.
"""
