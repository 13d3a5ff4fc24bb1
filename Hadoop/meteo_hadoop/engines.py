"""The engines by their names, and the one way in which a command runs a job on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meteo_common.errors import MismatchError
from meteo_common.settings import Settings
from meteo_hadoop.engine import Engine, EngineName, Result
from meteo_hadoop.job import Job
from meteo_hadoop.source import Source

YARN_FROM_BYTES = 7 << 30
"""Input from which `auto` chooses YARN, as README.md says. `./meteo bench growth` measures the fixed and marginal cost
of both engines on the same cores: YARN's are the higher ones there, so that it never wins. With k times the cores it is
reckoned to win from (c - a) / (b - d / k) bytes on, local taking a + b * bytes and yarn c + d * bytes: with 0.38 s,
4.34 s/GB, 8.81 s and 19.2 s/GB that is 7.4 GB for k = 6. On one machine, however large the input, local is faster."""


def choose_engine(name: EngineName, settings: Settings, size: int) -> EngineName:
    """Return the engine that `name` means for an input of `size` bytes."""
    if name != "auto":
        return name
    has_yarn = settings.hadoop_conf_dir is not None and settings.hadoop_classpath_jars is not None
    return "yarn" if has_yarn and size >= YARN_FROM_BYTES else "local"


def make_engine(name: EngineName, settings: Settings, sizes: Mapping[str, int]) -> Engine:
    """Return an engine that reads from the settings' HDFS; `sizes` are bytes by path, to share the work evenly.

    Raises UsageError when settings for it are missing.
    """
    name = choose_engine(name, settings, sum(sizes.values()))
    # Imported here: each brings what the other does not need.
    if name == "yarn":
        from meteo_hadoop.yarn import YarnEngine

        return YarnEngine(settings, sizes=sizes)
    from meteo_hadoop.local import LocalEngine

    return LocalEngine(Source(settings.hdfs_url, settings.hdfs_user), sizes=sizes)


def run_job(job: Job, name: EngineName, settings: Settings, sizes: Mapping[str, int]) -> Result:
    """Run `job` over the files of `sizes` (bytes by path), and count its lines in the metrics.

    Raises MismatchError when the share of bad lines is above BAD_LINES_LIMIT, and what the engine raises.
    """
    # Imported here: every service of the command line knows this module, and few have metrics of jobs.
    from meteo_hadoop.measures import BAD_LINES, LINES

    engine = make_engine(name, settings, sizes)
    result = replace(engine.run(job, list(sizes)), engine=engine.name)
    LINES.labels(job.name).inc(result.lines_read)
    for reason, number in result.bad_lines.items():
        BAD_LINES.labels(job.name, reason).inc(number)
    bad = sum(result.bad_lines.values())
    if bad > settings.bad_lines_limit * result.lines_read:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(result.bad_lines.items()))
        raise MismatchError(
            f"{bad} of {result.lines_read} lines in HDFS do not count ({reasons}), more than BAD_LINES_LIMIT"
            f" {settings.bad_lines_limit:g} allows; nothing was published: see ./meteo reconcile --deep, or raise it."
        )
    return result
