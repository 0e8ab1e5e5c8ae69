"""The flight recorder: one record of each packet, in files that cannot be altered unnoticed.

Enters: a `Handoff` and the decision that it began with.  Leaves: lines in a chain of hashes, `Record` values read from
it, and a `Report` on whether it is what was written.  Knows nothing of sockets, policies or members; of what may be
kept of a packet only what `gateway.recording` says.
"""

from gateway.recorder.reader import Reader
from gateway.recorder.record import Record
from gateway.recorder.spec import Fsync, OnFailure, RecorderSpec
from gateway.recorder.writer import Recorder

__all__ = ["Fsync", "OnFailure", "Reader", "Record", "Recorder", "RecorderSpec"]
