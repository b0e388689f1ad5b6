"""Reading conf.d, in the order in which the files here are passed through.

``files``     *.toml → one merged tree, and the place of every key in it
``complain``  what a complaint says, and the list that gathers them
``values``    one value: durations, names, addresses, choices
``section``   one table: takes its keys one by one, complains of the rest
``params``    what an agent, link or fencing device is given
``cluster``   everything but the services
``services``  [service.*], one by one
``relations`` the services against each other, and without fencing
``aside``     the services that fall with an agent that cannot be used here
``digests``   what both nodes must agree on, as short texts

The door is ``hostd.config``; nobody else imports from here.
"""
