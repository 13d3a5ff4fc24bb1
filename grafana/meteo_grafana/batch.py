"""The dashboard Batch: the cycles of export and aggregate, the days they made, and YARN, HDFS and HBase below them."""

from __future__ import annotations

from typing import Any

from meteo_grafana.boards import Row, board
from meteo_grafana.panels import BAD, GOOD, WARN, columns, figures, gauges, graph, listing
from meteo_grafana.queries import now, or_none, over_time, rows

DESCRIPTION = "From PostgreSQL to HDFS and HBase: the cycles, the days that they made, and the servers that hold them."
SERVICES = 'job=~"export|aggregate"'


def batch() -> dict[str, Any]:
    """Return the dashboard."""
    return board("Batch", DESCRIPTION, "now-6h", [_cycles(), _work(), _days(), _yarn(), _hdfs(), _hbase()])


def _cycles() -> Row:
    return "Cycles", [
        figures(
            "Since the last good cycle",
            "How long ago a cycle of each service last ended well.",
            "s",
            now(f"time() - meteo_cycle_last_success_timestamp_seconds{{{SERVICES}}}", "{{job}}"),
            span=6,
            height=7,
            steps=((None, GOOD), (1800, WARN), (7200, BAD)),
        ),
        graph(
            "Cycles by how they ended",
            "Cycles of an hour before each point, by service and outcome.",
            "short",
            over_time(
                f"sum by (job, outcome) (increase(meteo_cycles_total{{{SERVICES}}}[1h]))", "{{job}}: {{outcome}}"
            ),
            span=9,
            height=7,
            low=0,
        ),
        graph(
            "Duration of the last cycle",
            "One that comes near its interval is about to fall behind.",
            "s",
            over_time(f"meteo_cycle_duration_seconds{{{SERVICES}}}", "{{job}}"),
            span=9,
            height=7,
            low=0,
        ),
    ]


def _work() -> Row:
    return "What the cycles moved", [
        graph(
            "Rows",
            "Rows that the cycles of an hour before each point wrote: observations into HDFS, aggregates into HBase.",
            "short",
            over_time(f"sum by (job) (increase(meteo_cycle_rows_total{{{SERVICES}}}[1h]))", "{{job}}"),
            low=0,
        ),
        graph(
            "Bytes",
            "Bytes that the cycles of an hour before each point wrote.",
            "bytes",
            over_time(f"sum by (job) (increase(meteo_cycle_bytes_total{{{SERVICES}}}[1h]))", "{{job}}"),
            low=0,
        ),
        graph(
            "Lines of MapReduce",
            "Lines that jobs read in an hour before each point, and those of them that do not count, by reason.",
            "short",
            over_time("sum(increase(meteo_mapreduce_lines_total[1h]))", "read"),
            over_time(
                or_none("sum by (reason) (increase(meteo_mapreduce_bad_lines_total[1h]))", "reason"), "bad: {{reason}}"
            ),
            low=0,
        ),
    ]


def _days() -> Row:
    return "Days (partitions dt=…)", [
        columns(
            "Rows of the last 30 days",
            "Rows of each day that were exported to HDFS, by PostgreSQL's books.",
            "short",
            rows("""\
SELECT to_char(day, 'DD Mon') AS day, sum(rows) AS "rows"
FROM export_plan_days
WHERE published_at IS NOT NULL AND day > (SELECT max(day) - 30 FROM export_plan_days)
GROUP BY export_plan_days.day ORDER BY export_plan_days.day"""),
            "day",
            span=10,
        ),
        listing(
            "Newest days",
            "Whether the aggregates are those of the day's files, and HBase has them. Late rows change a past day.",
            "short",
            rows("""\
SELECT to_char(days.day, 'YYYY-MM-DD') AS day, sum(rows) AS rows, count(DISTINCT plan_id) AS exports,
       CASE WHEN files_version > aggregated_version THEN 'changed' ELSE 'yes' END AS aggregated,
       CASE WHEN published_generation > hbase_generation THEN 'owed' ELSE 'yes' END AS "in HBase",
       to_char(changed_at, 'MM-DD HH24:MI') AS "last change"
FROM days JOIN export_plan_days USING (day)
GROUP BY days.day ORDER BY days.day DESC LIMIT 50"""),
            span=10,
        ),
        figures(
            "Days by state",
            "Of all days: those that changed since they were aggregated, and those that HBase is owed.",
            "short",
            rows("""\
SELECT count(*) AS "all", count(*) FILTER (WHERE files_version > aggregated_version) AS "changed",
       count(*) FILTER (WHERE published_generation > hbase_generation) AS "owed"
FROM days"""),
            height=8,
        ),
    ]


def _yarn() -> Row:
    root = 'queue="root"'
    return "YARN", [
        graph(
            "Applications",
            "That wait, that run. Small days run without YARN, on the engine local.",
            "short",
            over_time(f"max(queue_metrics_apps_pending{{{root}}})", "pending"),
            over_time(f"max(queue_metrics_apps_running{{{root}}})", "running"),
            span=6,
            low=0,
        ),
        graph(
            "Applications that ended",
            "Since the ResourceManager started, by how they ended.",
            "short",
            over_time(f"max(queue_metrics_apps_completed{{{root}}})", "completed"),
            over_time(f"max(queue_metrics_apps_failed{{{root}}})", "failed"),
            over_time(f"max(queue_metrics_apps_killed{{{root}}})", "killed"),
            span=6,
            low=0,
        ),
        graph(
            "Memory of containers",
            "What containers have, and what is still free, over all NodeManagers.",
            "bytes",
            over_time(f"1048576 * max(queue_metrics_allocated_mb{{{root}}})", "allocated"),
            over_time(f"1048576 * max(queue_metrics_available_mb{{{root}}})", "free"),
            span=6,
            stacked=True,
            low=0,
        ),
        graph(
            "NodeManagers",
            "That work, and that are lost or unhealthy.",
            "short",
            over_time("max(cluster_metrics_num_active_n_ms)", "active"),
            over_time("max(cluster_metrics_num_lost_n_ms)", "lost"),
            over_time("max(cluster_metrics_num_unhealthy_n_ms)", "unhealthy"),
            span=6,
            low=0,
        ),
    ]


def _hdfs() -> Row:
    return "HDFS", [
        gauges(
            "Capacity",
            "Used by HDFS, and by anything else on its disks, of all that there is.",
            "percentunit",
            now("max(fs_namesystem_capacity_used) / max(fs_namesystem_capacity_total)", "HDFS"),
            now("max(fs_namesystem_capacity_used_non_dfs) / max(fs_namesystem_capacity_total)", "others"),
            span=6,
            steps=((None, GOOD), (0.8, WARN), (0.9, BAD)),
            high=1,
        ),
        figures(
            "Blocks in trouble",
            "With fewer copies than wanted, without any, or with a wrong checksum.",
            "short",
            now("max(fs_namesystem_under_replicated_blocks)", "under-replicated"),
            now("max(fs_namesystem_missing_blocks)", "missing"),
            now("max(fs_namesystem_corrupt_blocks)", "corrupt"),
            span=6,
            height=8,
            steps=((None, GOOD), (1, BAD)),
        ),
        graph(
            "Files and blocks",
            "All files and directories, and their blocks: the NameNode keeps each in its memory.",
            "short",
            over_time("max(fs_namesystem_files_total)", "files"),
            over_time("max(fs_namesystem_blocks_total)", "blocks"),
            span=6,
            low=0,
        ),
        graph(
            "DataNodes' traffic",
            "Bytes that the DataNodes read and wrote.",
            "binBps",
            over_time("sum(rate(datanode_bytes_read[$__rate_interval]))", "read"),
            over_time("sum(rate(datanode_bytes_written[$__rate_interval]))", "written"),
            span=6,
            low=0,
        ),
    ]


def _hbase() -> Row:
    return "HBase", [
        figures(
            "Servers",
            "Region servers that work, that are dead, and the regions that they serve.",
            "short",
            now("max(server_num_region_servers)", "alive"),
            now("max(server_num_dead_region_servers)", "dead"),
            now("sum(server_region_count)", "regions"),
            span=6,
            height=8,
        ),
        graph(
            "Requests",
            "Rows read and written each second.",
            "ops",
            over_time("sum(rate(server_read_request_count[5m]))", "read"),
            over_time("sum(rate(server_write_request_count[5m]))", "written"),
            span=6,
            low=0,
        ),
        graph(
            "Where the rows lie",
            "In memory until they are flushed, then in files of HDFS.",
            "bytes",
            over_time("sum(server_mem_store_size)", "memory"),
            over_time("sum(server_store_file_size)", "files"),
            span=6,
            low=0,
        ),
        graph(
            "Slow reads",
            "99 of 100 reads of a row were at least this quick.",
            "ms",
            over_time("max(server_get_99th_percentile)", "99 % within"),
            span=6,
            low=0,
        ),
    ]
