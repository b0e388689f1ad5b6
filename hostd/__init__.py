"""hostd: services that stay up, on two nodes.

THE DOOR.  Two nodes watch each other over several links; each service has an
address of its own and a primary; when a node dies the other takes over all
its addresses and services.  The wish is in ``conf.d`` (``hostd.config``), the
decisions are in ``hostd.core`` (pure: read ``core/node.py``), the acts are at
the edges: ``heart`` beats, ``daemon`` and ``perform`` carry out effects,
``host`` forks them and every agent action.

The path of one heartbeat: a plugin in the heart receives bytes, ``core.wire``
opens the frame, the brain steps the core with ``FrameReceived``; when all
links are quiet for ``deadtime``, ``core.pair`` goes to PEER_LOST,
``core.fencing`` seeks clearance, ``core.placement`` and ``core.assignments``
say what belongs here, ``core.services`` climbs each service's ladder, and
``perform`` adds the addresses, announces them and runs the agents.

To add a resource agent, put one file in ``agents/``; a heartbeat medium, one
file in ``plugins/``; a command, one file in ``hostd/commands/``.
"""

__version__ = "0.1.0"
