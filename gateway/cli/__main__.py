"""``python -m gateway.cli``, the same as ``phoenixflight``."""

from gateway.cli import main

main()
