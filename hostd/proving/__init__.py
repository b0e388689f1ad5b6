"""Does an agent keep the contract?  The rules, and the place where they are tried.

    proving.prove(subject, …) → Verdict

A rule is one sentence that an agent must fulfil: it acts on a *stage* (a
private instance of the service, and the hands of hostd that run its actions)
and returns, or raises ``Violation`` (what was expected, what came) or
``Untried`` (why it cannot be tried here).  Static rules look at the module
only; live ones start, stop, kill, freeze and starve the real service.

    findings.py      rules, findings and the verdict: the nouns
    subject.py       the agent under test, and its parameters
    keeper.py        the process that outlives all and leaves nothing behind
    stage.py         the throw-away place, nodes A and B, one action or several at once
    afflictions.py   what is done to an action from inside its child: hang, no PATH, full disk
    traces.py        what a service has on the machine: processes, files, sockets, mounts
    rules/           one module per family of rules; its ``__init__`` has their order
    runner.py        tries the rules in turn
    evidence.py, junit.py, facts.py    what is written about it

Knows no particular agent, and neither terminals nor exit codes: those are
``hostd.commands.agent_test``.
"""
