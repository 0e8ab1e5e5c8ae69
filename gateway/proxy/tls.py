"""TLS as a sans-IO layer over OpenSSL's memory BIOs: ciphertext in, plaintext out, and the reverse.

One layer for callers, for agents and for the TLS inside a CONNECT tunnel; the same under every event loop.
"""

from __future__ import annotations

import ssl
import sys

_DER = 2
"""``_ssl.ENCODING_DER``."""
_READ_BYTES = 16384
"""The most that one TLS record carries (RFC 8446 section 5.1)."""


class TlsFailure(Exception):
    """The handshake or the record layer failed; `reason` is short and stable, fit for a metric."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class TlsLayer:
    """One TLS connection's state machine."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_raw", "_waiting", "handshaken", "peer_closed")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        # What the methods of an SSLObject call: they are Python's own, and cost more than a small record does.
        self._raw: ssl.SSLObject = getattr(self._object, "_sslobj", self._object)
        self._waiting: list[bytes] = []
        self.handshaken = False
        self.peer_closed = False
        """The peer sent close_notify."""

    def start(self) -> None:
        """Begin the handshake (the client speaks first)."""
        self._shake()

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext, give the plaintext that it completes.

        Raises:
            TlsFailure: the peer failed the handshake or broke a record.

        """
        self._incoming.write(data)
        if not self.handshaken and not self._shake():
            return b""
        raw = self._raw
        incoming = self._incoming
        # No more comes out than goes in, but for what is left of a record: a small buffer does for small records.
        size = min(max(incoming.pending, 1), _READ_BYTES)
        pieces: list[bytes] = []
        try:
            while True:
                piece = raw.read(size)
                if not piece:
                    self.peer_closed = True
                    break
                pieces.append(piece)
                # Asking for more when nothing is left costs an exception: look first.  Less than was asked for is all.
                if not incoming.pending and (len(piece) < size or not raw.pending()):
                    break
                size = _READ_BYTES
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.peer_closed = True
        except ssl.SSLError as error:
            raise _failure(error) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def wrap(self, data: bytes) -> bytes:
        """Take plaintext, give all ciphertext that is due; plaintext waits for the handshake's end."""
        if data:
            if self.handshaken:
                self._raw.write(data)
            else:
                self._waiting.append(data)
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> None:
        """Say close_notify, once."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            return  # it waits for the peer's answer, which nobody needs

    def _shake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _failure(error) from None
        self.handshaken = True
        for data in self._waiting:
            self._object.write(data)
        self._waiting.clear()
        return True

    @property
    def alpn(self) -> str | None:
        """The negotiated protocol."""
        return self._object.selected_alpn_protocol()

    def peer_certificate(self) -> bytes | None:
        """The peer's verified certificate, DER."""
        return self._object.getpeercert(binary_form=True)

    def peer_chain(self) -> list[bytes]:
        """The peer's certificate and those that vouch for it, the root last, DER; empty when it showed none.

        A session that was resumed knows of the peer's certificate only.
        """
        if sys.version_info >= (3, 13):
            chain = self._object.get_verified_chain()
        else:  # the public method came with 3.13; what it calls was there before
            found = self._raw.get_verified_chain()  # type: ignore[attr-defined]
            chain = [certificate.public_bytes(_DER) for certificate in found or ()]
        own = self.peer_certificate()
        return chain or ([own] if own is not None else [])


_BY_VERIFY_CODE = {
    3: "crl-missing",
    9: "certificate-not-yet-valid",
    10: "certificate-expired",
    11: "crl-not-yet-valid",
    12: "crl-expired",
    23: "certificate-revoked",
}


def _failure(error: ssl.SSLError) -> TlsFailure:
    """Name what went wrong in a few stable words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _BY_VERIFY_CODE.get(error.verify_code, "certificate-untrusted")
        return TlsFailure(reason, error.verify_message)
    reason = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate-missing",
        "HTTP_REQUEST": "not-tls",
        "WRONG_VERSION_NUMBER": "not-tls",
        "UNSUPPORTED_PROTOCOL": "tls-version",
        "NO_SHARED_CIPHER": "no-shared-cipher",
    }.get(error.reason or "", "")
    if not reason:
        reason = "peer-alert" if "ALERT" in (error.reason or "") else "handshake-failed"
    return TlsFailure(reason, error.reason or str(error))
