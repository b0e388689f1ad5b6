"""What the agent ``mysql`` knows of MariaDB and MySQL: datadirs, their making, their words, a session.

For that agent first.  An author of another may import it; it changes when those servers or their agent do.
"""
