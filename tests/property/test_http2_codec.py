"""The HTTP/2 codecs, each against a second implementation, whatever the pieces in which bytes arrive."""

from __future__ import annotations

import random

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import ResponseHead
from gateway.proxy.codec import ConnectionFailed, RequestReceived
from tests.proxy.codec.implementations import IMPLEMENTATIONS, Implementation

HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "g"), (":path", "/")]


class Dialogue:
    """A client and our server, joined by two wires that deliver in arbitrary pieces."""

    def __init__(self, implementation: Implementation, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = implementation.server()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.to_server = bytearray()
        self.to_client = bytearray()

    def _piece(self, wire: bytearray) -> bytes:
        size = self.random.choice([0, 9, 100, 20_000, 70_000])
        data = bytes(wire[:size])
        del wire[:size]
        return data

    def turn(self) -> list[h2.events.Event]:
        """Deliver a piece each way; the server refuses every request at once, as a denied packet is."""
        self.to_server += self.client.data_to_send()
        for event in self.server.receive(self._piece(self.to_server)):
            assert not isinstance(event, ConnectionFailed), event
            if isinstance(event, RequestReceived):
                self.server.send_response(event.stream, ResponseHead(403, []), ended=False)
                self.server.send_data(event.stream, b"no")
                self.server.end(event.stream)
                self.server.release(event.stream)
        self.to_client += self.server.output()
        data = self._piece(self.to_client)
        return self.client.receive_data(data) if data else []


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@given(st.integers(0, 2**32), st.lists(st.sampled_from([0, 1, 1000, 300_000]), min_size=1, max_size=3))
def test_a_client_that_is_answered_while_it_sends_never_loses_its_connection(
    implementation: Implementation, seed: int, bodies: list[int]
) -> None:
    dialogue = Dialogue(implementation, seed)
    client = dialogue.client
    for size in bodies:
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, HEADERS)
        left, ended, answered = size, False, False
        while not (ended and answered):
            answered |= any(isinstance(event, h2.events.StreamEnded) for event in dialogue.turn())
            window = min(left, client.local_flow_control_window(stream), client.max_outbound_frame_size)
            if window:
                client.send_data(stream, b"x" * window)
                left -= window
            if not left and not ended:
                client.end_stream(stream)
                ended = True
