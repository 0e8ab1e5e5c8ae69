"""The soak: a gateway under steady load while all goes wrong around it, and a verdict about what it leaves behind.

`make soak` runs it for `SOAK_MINUTES`.  Callers tell what became of each packet that they sent; the access log must
tell of each exactly once; and the gateway's memory, descriptors and tasks must be flat.
"""
