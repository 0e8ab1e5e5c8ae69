"""The control side: configuration, certificates, reload, and the process's life.

Enters: files.  Leaves: one immutable `Snapshot` after another, swapped into the data plane.
Never on a request's way.
"""
