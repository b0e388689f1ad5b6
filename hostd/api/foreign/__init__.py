"""What somebody else wrote for another system: OCF agents, init scripts, and what they leave running.

For the agents ``ocf``, ``lsb``, ``script`` and ``systemd`` first.  An author of another may import it;
it changes when they do.
"""
