"""Agents that hand work to each other through the gateway, to be watched and to be copied from.

Each agent is a module of its own (``python -m gateway.demo.coder``) that knows the gateway by an address and
itself by an SVID; ``peer.py`` is all that they share.  ``processes.py`` starts them, ``scenario.py`` is what
they are asked, ``report.py`` is what the terminal shows.  No other room imports this one, but for the command.
"""
