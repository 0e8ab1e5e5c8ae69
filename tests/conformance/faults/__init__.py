"""Peers that do it wrong: agents and callers on real sockets, by the name of what is wrong with them."""
