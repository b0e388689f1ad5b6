"""What the agent ``cyrus`` knows of Cyrus IMAP: its configuration, its processes, what it needs, how it is asked.

For that agent first.  An author of another may import it; it changes when Cyrus or its agent does.
"""
