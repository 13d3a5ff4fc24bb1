"""The engines by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from meteo_common.settings import Settings
from meteo_hadoop.engine import Engine
from meteo_hadoop.source import Source

EngineName = Literal["local", "yarn"]


def make_engine(name: EngineName, settings: Settings, sizes: Mapping[str, int]) -> Engine:
    """Return an engine that reads from the settings' HDFS; `sizes` are bytes by path, to share the work evenly.

    Raises UsageError when settings for it are missing.
    """
    # Imported here: each brings what the other does not need.
    if name == "yarn":
        from meteo_hadoop.yarn import YarnEngine

        return YarnEngine(settings, sizes=sizes)
    from meteo_hadoop.local import LocalEngine

    return LocalEngine(Source(settings.hdfs_url, settings.hdfs_user), sizes=sizes)
