"""What an earlier host left of an action: found by its record, and killed.

Decides which processes are meant, and never hits a number that was used
again.  What follows for the service is not its business.
"""

import logging

from hostd import processes
from hostd.cgroups import Groups, Place
from hostd.records import Record

log = logging.getLogger("hostd.actions")


def kill(record: Record, groups: Groups) -> None:
    """Kill the processes of an action whose host died; never a number that was used again."""
    place = Place(record.service, record.resource, record.token, record.cgroup)
    log.warning("an earlier hostd left its %s of %s unfinished", record.action, record.resource)
    if record.pid == 0:  # it had not begun, or it is a monitor: no daemon can be its doing
        groups.kill(place, -1, daemons=True)
    elif record.cgroup or processes.is_same(record.pid, record.started):
        groups.kill(place, record.pid, daemons=False)
    else:
        for process in groups.in_action(place, session=-1):
            if process.session == record.pid:
                processes.kill(process)
    if record.cgroup:
        groups.close(place)
