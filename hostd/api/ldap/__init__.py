"""What the agent ``ldap`` knows of OpenLDAP: its configuration, its words, a search by hand.

For that agent first.  An author of another may import it; it changes when slapd or its agent does.
"""
