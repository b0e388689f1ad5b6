"""A world to be wrong in: two real cores, simulated everything else.

``world.py`` is what is true, ``faults.py`` what goes wrong, ``judge.py`` what
must never be; ``run.py`` puts them together under one seed, ``trace.py``
draws the run, ``story.py`` reads and writes scenarios and ``search.py``
tries everything in a small world.  ``whatif.py`` plays a site's own plan for ``hostd simulate``.
``python -m hostd.sim --help``.
"""
