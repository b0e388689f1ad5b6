"""Heartbeat's /etc/ha.d → conf.d, in the order in which the files here are passed through.

``fates``       a line, what became of it and why, and the ledger of all
``texts``       bytes of a file → lines that can be shown
``hacf``        ha.cf → directives, as Heartbeat's own reader splits them
``directives``  directives → what they mean: nodes, timers, media, switches
``pair``        two nodes' ha.cf against each other: what becomes a table of both
``media``       media → [[heartbeat.link]]
``haresources`` haresources → groups, exactly as Heartbeat's shell code joins and splits them
``site``        what else lies in the directory: scripts, parameter files, hooks
``addresses``   IPaddr and its kin → an address of a service
``resources``   one resource of a group → an address or an agent
``services``    groups → [service.*]
``authkeys``    the key file, of which nothing is taken over
``writing``     tables → TOML, read back and compared
``conversion``  all of them in order; the door

Nothing here prints, and nothing runs what it reads.
"""
