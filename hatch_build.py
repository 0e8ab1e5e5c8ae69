"""A compiled wheel holds the codecs that are in C, as far as they can be compiled: HATCH_BUILD_HOOKS_ENABLE=1."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeHook(BuildHookInterface):
    """Runs tools/native, and takes what it made into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        for made in runpy.run_path(str(Path(self.root, "tools", "native")))["build"](Path(self.root)):
            build_data["artifacts"].append(f"/{made.relative_to(self.root)}")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
