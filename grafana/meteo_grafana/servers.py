"""The dashboard Servers: what is up, the host, Kafka, PostgreSQL, the JVMs and our own services."""

from __future__ import annotations

from typing import Any

from meteo_grafana.boards import Row, board
from meteo_grafana.panels import BAD, GOOD, WARN, figures, gauges, graph
from meteo_grafana.queries import now, over_time

DESCRIPTION = "What is up, and how much it has left: host, Kafka, PostgreSQL, JVMs and our own services."
UP = {1: ("up", GOOD), 0: ("down", BAD)}
OWN = 'job=~"producer|consumer|export|aggregate|page"'
DATABASE = 'datname="weatherdb"'


def servers() -> dict[str, Any]:
    """Return the dashboard."""
    return board("Servers", DESCRIPTION, "now-3h", [_up(), _host(), _kafka(), _postgresql(), _jvms(), _services()])


def _up() -> Row:
    return "Up", [
        figures(
            "Servers and services",
            "Whether Prometheus gets an answer from each at its last scrape.",
            "none",
            now("min by (job) (up)", "{{job}}"),
            span=24,
            height=4,
            names=UP,
            background=True,
        )
    ]


def _host() -> Row:
    free = 'node_filesystem_avail_bytes{mountpoint="/"} / node_filesystem_size_bytes{mountpoint="/"}'
    return "Host", [
        graph(
            "Processor",
            "Share of all cores' time, by what it was spent on; what is missing to 100 % was idle.",
            "percentunit",
            over_time(
                """sum by (mode) (rate(node_cpu_seconds_total{mode!="idle"}[$__rate_interval]))
                / on () group_left () count(count by (cpu) (node_cpu_seconds_total))""",
                "{{mode}}",
            ),
            stacked=True,
            low=0,
        ),
        graph(
            "Memory",
            "In use, and what programs may still have without swapping.",
            "bytes",
            over_time("node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes", "used"),
            over_time("node_memory_MemAvailable_bytes", "available"),
            span=6,
            stacked=True,
            low=0,
        ),
        graph(
            "Disks' traffic",
            "Bytes read from and written to all disks.",
            "binBps",
            over_time("sum(rate(node_disk_read_bytes_total[$__rate_interval]))", "read"),
            over_time("sum(rate(node_disk_written_bytes_total[$__rate_interval]))", "written"),
            span=6,
            low=0,
        ),
        gauges(
            "Disk in use",
            "Of the file system of the root directory.",
            "percentunit",
            now(f"1 - max({free})", "/"),
            span=4,
            steps=((None, GOOD), (0.8, WARN), (0.9, BAD)),
            high=1,
        ),
    ]


def _kafka() -> Row:
    return "Kafka", [
        figures(
            "Partitions in trouble",
            "With fewer copies in sync than wanted, fewer than writes need, or without a leader.",
            "short",
            now("sum(kafka_server_replicamanager_underreplicatedpartitions)", "under-replicated"),
            now("sum(kafka_server_replicamanager_underminisrpartitioncount)", "under min.isr"),
            now("sum(kafka_controller_offlinepartitionscount)", "offline"),
            span=6,
            height=8,
            steps=((None, GOOD), (1, BAD)),
        ),
        graph(
            "Topics' traffic",
            "Bytes that producers wrote, by topic.",
            "binBps",
            over_time("sum by (topic) (rate(kafka_topic_bytesin_total[$__rate_interval]))", "{{topic}}"),
            span=6,
            low=0,
        ),
        graph(
            "Slow requests",
            "99 of 100 requests of each kind were answered within this time; fetches wait for something to fetch.",
            "ms",
            over_time('max by (request) (kafka_request_milliseconds{quantile="0.99"})', "{{request}}"),
            span=6,
            low=0,
        ),
        graph(
            "Size of the log",
            "Bytes of each topic on the brokers' disks, copies included.",
            "bytes",
            over_time("topk(6, sum by (topic) (kafka_log_size_bytes))", "{{topic}}"),
            span=6,
            low=0,
        ),
    ]


def _postgresql() -> Row:
    hits = f"sum(rate(pg_stat_database_blks_hit{{{DATABASE}}}[$__rate_interval]))"
    reads = f"sum(rate(pg_stat_database_blks_read{{{DATABASE}}}[$__rate_interval]))"
    return "PostgreSQL", [
        graph(
            "Connections",
            "By what they do, and how many the server accepts.",
            "short",
            over_time("sum by (state) (pg_stat_activity_count) > 0", "{{state}}"),
            over_time("max(pg_settings_max_connections)", "limit"),
            span=6,
            low=0,
        ),
        graph(
            "Transactions",
            "Of the platform's database, each second.",
            "ops",
            over_time(f"sum(rate(pg_stat_database_xact_commit{{{DATABASE}}}[$__rate_interval]))", "committed"),
            over_time(f"sum(rate(pg_stat_database_xact_rollback{{{DATABASE}}}[$__rate_interval]))", "rolled back"),
            span=6,
            low=0,
        ),
        graph(
            "Rows",
            "Rows of the platform's database that were inserted, updated and deleted each second.",
            "ops",
            over_time(f"sum(rate(pg_stat_database_tup_inserted{{{DATABASE}}}[$__rate_interval]))", "inserted"),
            over_time(f"sum(rate(pg_stat_database_tup_updated{{{DATABASE}}}[$__rate_interval]))", "updated"),
            over_time(f"sum(rate(pg_stat_database_tup_deleted{{{DATABASE}}}[$__rate_interval]))", "deleted"),
            span=6,
            low=0,
        ),
        graph(
            "Size",
            "Bytes of the platform's database on the disk.",
            "bytes",
            over_time(f"sum(pg_database_size_bytes{{{DATABASE}}})", "weatherdb"),
            span=3,
            low=0,
        ),
        figures(
            "Found in the cache",
            "Share of the blocks that PostgreSQL had in its own memory when they were read.",
            "percentunit",
            now(f"{hits} / ({hits} + {reads})", "blocks"),
            span=3,
            height=8,
            steps=((None, WARN), (0.9, GOOD)),
            decimals=1,
        ),
    ]


def _jvms() -> Row:
    return "JVMs", [
        graph(
            "Heap in use",
            "Memory of objects, as it rises between two collections.",
            "bytes",
            over_time("1048576 * max by (job) (jvm_metrics_mem_heap_used_m)", "{{job}}"),
            over_time('max by (job) (jvm_memory_used_bytes{area="heap"})', "{{job}}"),
            low=0,
        ),
        gauges(
            "Heap against its limit",
            "One that stays above nine tenths spends its time collecting: give it more memory.",
            "percentunit",
            now("max by (job) (jvm_metrics_mem_heap_used_m / jvm_metrics_mem_heap_max_m)", "{{job}}"),
            now(
                'max by (job) (jvm_memory_used_bytes{area="heap"} / jvm_memory_max_bytes{area="heap"})',
                "{{job}}",
            ),
            steps=((None, GOOD), (0.8, WARN), (0.9, BAD)),
            high=1,
        ),
        graph(
            "Time spent collecting",
            "Share of the time in which a JVM did nothing but collect garbage.",
            "percentunit",
            over_time("sum by (job) (rate(jvm_metrics_gc_time_millis[5m])) / 1000", "{{job}}"),
            over_time("sum by (job) (rate(jvm_gc_collection_seconds_sum[5m]))", "{{job}}"),
            low=0,
        ),
    ]


def _services() -> Row:
    return "Our services", [
        graph(
            "Memory",
            "What each service's process has of the machine's memory.",
            "bytes",
            over_time(f"sum by (job) (process_resident_memory_bytes{{{OWN}}})", "{{job}}"),
            low=0,
        ),
        graph(
            "Processor",
            "Share of one core that each service keeps busy.",
            "percentunit",
            over_time(f"sum by (job) (rate(process_cpu_seconds_total{{{OWN}}}[$__rate_interval]))", "{{job}}"),
            low=0,
        ),
        graph(
            "Time since the start",
            "A line that falls to nothing is a restart.",
            "s",
            over_time(f"time() - max by (job) (process_start_time_seconds{{{OWN}}})", "{{job}}"),
            low=0,
        ),
    ]
