"""The bench: this gateway, Envoy and a plain Python proxy doing the same work, side by side in one run.

`python -m bench` starts everything, measures and reports; each other module does one part of that.  Linux only.
"""
