"""A world to be wrong in: two real cores, simulated everything else.

``world.py`` is what is true, ``faults.py`` what goes wrong, ``judge.py`` what
must never be; ``run.py`` puts them together under one seed, ``trace.py``
draws the run, ``story.py`` reads and writes scenarios and ``search.py``
tries everything in a small world (``small_world.py``, ``small_steps.py``).
``whatif.py`` plays a site's own plan for ``hostd simulate``.

One node of the world is ``machine.py`` with its ``clocks.py``, its ``heart.py``
and its ``hands.py``, which hand each effect to ``actions.py``, ``addresses.py``,
``probes.py`` or ``devices.py``.  ``python -m hostd.sim --help``.
"""
