"""The dashboard Pipeline: is the weather fresh, and if not, which hop stands still and why."""

from __future__ import annotations

from typing import Any

from meteo_grafana.boards import Row, board, stations_from_prometheus
from meteo_grafana.panels import BAD, GOOD, WARN, figures, gauges, graph, listing
from meteo_grafana.queries import now, now_as_rows, or_none, over_time

DESCRIPTION = (
    "From the weather APIs to HBase: freshness first, then what flows, how long it takes, and what goes wrong."
)
NEWEST = 'meteo_newest_observation_timestamp_seconds{station=~"$station"}'
STATES = {0: ("ok", GOOD), 1: ("late", WARN), 2: ("stopped", BAD)}
HOPS = ("produce", "consume", "export", "aggregate", "serve")
UP = {1: ("up", GOOD), 0: ("down", BAD)}


def pipeline() -> dict[str, Any]:
    """Return the dashboard."""
    rows = [_state(), _freshness(), _flow(), _latency(), _errors(), _budgets(), _reconciliation()]
    return board("Pipeline", DESCRIPTION, "now-3h", rows, stations_from_prometheus())


def _state() -> Row:
    return "Is the weather fresh?", [
        figures(
            "Weather",
            "Whether each station's weather is as new in PostgreSQL as its schedule promises.",
            "none",
            now("meteo_pipeline_fresh", "in PostgreSQL"),
            names={1: ("fresh", GOOD), 0: ("stale", BAD)},
            background=True,
        ),
        figures(
            "Hops",
            "Each hop from the APIs to HBase: late means further behind than its interval allows, stopped that nothing "
            "moves. The page says why, and what to do.",
            "none",
            *(now(f'meteo_pipeline_hop_state{{hop="{hop}"}}', hop) for hop in HOPS),
            span=10,
            names=STATES,
            background=True,
        ),
        figures(
            "Servers",
            "Whether each server answers the page.",
            "none",
            now("meteo_pipeline_server_up", "{{server}}"),
            span=10,
            names=UP,
            background=True,
        ),
    ]


def _freshness() -> Row:
    return "Freshness", [
        graph(
            "Age of the newest observation",
            "In each tier, of the station that has the newest. Lines that rise together are a source that does not "
            "answer; one that rises alone is the hop before its tier.",
            "s",
            over_time(f"time() - max by (tier) ({NEWEST})", "{{tier}}"),
            low=0,
        ),
        listing(
            "Age by station and tier",
            "How long ago the newest observation of each station in each tier was made.",
            "s",
            now_as_rows(f"time() - max by (station, tier) ({NEWEST})", "{{station}} {{tier}}"),
            span=10,
            matrix=("station", "tier"),
        ),
        gauges(
            "Since the last answer",
            "How long ago a station was last asked with success; what was replayed or backfilled does not count.",
            "s",
            now('time() - meteo_newest_collection_timestamp_seconds{station=~"$station"}', "{{station}}"),
            span=6,
            steps=((None, GOOD), (1200, WARN), (3600, BAD)),
        ),
    ]


def _flow() -> Row:
    return "Flow", [
        graph(
            "Messages into Kafka",
            "Messages of each source that Kafka acknowledged, per minute.",
            "cpm",
            over_time("60 * sum by (source) (rate(meteo_messages_produced_total[$__rate_interval]))", "{{source}}"),
            low=0,
        ),
        graph(
            "Records into PostgreSQL",
            "Records taken per minute, by what became of them: a row or a dead letter.",
            "cpm",
            over_time("60 * sum by (outcome) (rate(meteo_consumer_records_total[$__rate_interval]))", "{{outcome}}"),
            low=0,
        ),
        graph(
            "Lag",
            "Records of each partition that wait in Kafka, counted whether the consumer runs or not.",
            "short",
            over_time("sum by (partition) (meteo_pipeline_lag_records)", "partition {{partition}}"),
            stacked=True,
            low=0,
        ),
        graph(
            "Waiting for the batch tier",
            "Rows that are not in HDFS yet.",
            "short",
            over_time("meteo_pipeline_rows_to_export", "rows to export"),
            low=0,
        ),
        graph(
            "Days behind",
            "Days whose aggregates are older than their files, and days that HBase is owed.",
            "short",
            over_time("meteo_pipeline_days_changed", "to aggregate"),
            over_time("meteo_pipeline_days_owed_to_hbase", "owed to HBase"),
            low=0,
        ),
        graph(
            "Outbox of the producer",
            "Messages on its disk that Kafka has not acknowledged: they grow while Kafka is away, and none is lost.",
            "short",
            over_time("meteo_outbox_messages", "messages"),
            low=0,
        ),
    ]


def _latency() -> Row:
    return "Latency", [
        graph(
            "Answer to row",
            "From a provider's answer to its visible row in PostgreSQL, of one observation of each batch.",
            "s",
            *_quantiles("meteo_answer_to_row_seconds", "0.5", "0.95"),
            low=0,
        ),
        graph(
            "Poll of a source",
            "From asking a source to its message.",
            "s",
            *_quantiles("meteo_poll_seconds", "0.5", "0.95"),
            low=0,
        ),
        graph(
            "Batch into PostgreSQL",
            "Time to write a batch with its position.",
            "s",
            *_quantiles("meteo_consumer_batch_seconds", "0.5", "0.95"),
            low=0,
        ),
    ]


def _quantiles(metric: str, *quantiles: str) -> list[Any]:
    """Return quantiles of what was counted within ten minutes, the time of a poll: shorter windows would be empty."""
    rate = f"sum by (le) (rate({metric}_bucket[10m]))"
    names = {"0.5": "half within", "0.95": "95 % within"}
    return [over_time(f"histogram_quantile({quantile}, {rate})", names[quantile]) for quantile in quantiles]


def _errors() -> Row:
    polls = "sum by (reason) (increase(meteo_poll_failures_total[$__rate_interval]))"
    return "Errors", [
        graph(
            "Polls that failed",
            "Polls that brought no message, by kind of reason; docs/sources.md says what each means.",
            "short",
            over_time(or_none(polls, "reason"), "{{reason}}"),
            span=6,
            bars=True,
            low=0,
        ),
        graph(
            "Repeated and not delivered",
            "Polls that were repeated at once, and deliveries to Kafka that failed; each of both is tried again.",
            "short",
            over_time("sum(increase(meteo_retries_total[$__rate_interval])) or vector(0)", "polls repeated"),
            over_time(
                "sum(increase(meteo_messages_not_delivered_total[$__rate_interval])) or vector(0)", "not delivered"
            ),
            span=6,
            bars=True,
            low=0,
        ),
        figures(
            "Dead letters",
            "Records that are no valid message. ./meteo dead-letters list shows why.",
            "short",
            now("sum by (state) (meteo_pipeline_dead_letters)", "{{state}}"),
            height=8,
            steps=((None, GOOD), (1, WARN)),
        ),
        figures(
            "Lost and stuck",
            "Offsets that Kafka had deleted before they were taken, and partitions that stand still at a record.",
            "short",
            now("meteo_pipeline_gap_records", "in gaps"),
            now("sum(meteo_consumer_unreadable) or vector(0)", "stuck"),
            height=8,
            steps=((None, GOOD), (1, BAD)),
        ),
        figures(
            "Keys refused",
            "Providers that refuse their key: ./meteo budgets --retry-key has it tried again.",
            "short",
            now("sum(meteo_key_refused) or vector(0)", "refused"),
            height=8,
            steps=((None, GOOD), (1, BAD)),
        ),
    ]


def _budgets() -> Row:
    used = "meteo_budget_used / on (instance, account, window) meteo_budget_limit"
    return "Budgets", [
        gauges(
            "Used of each allowance",
            "What was asked of a provider within its last window, which is named in seconds, against what it allows.",
            "percentunit",
            now(f"max by (account, window) ({used})", "{{account}}, {{window}} s"),
            span=10,
            steps=((None, GOOD), (0.8, WARN), (0.95, BAD)),
            high=1,
        ),
        graph(
            "Time between two rounds",
            "PRODUCE_EVERY, or more when a budget is short.",
            "s",
            over_time("max by (source) (meteo_poll_interval_seconds)", "{{source}}"),
            span=8,
            low=0,
        ),
        figures(
            "Paused by a provider",
            "For how long each provider still wants not to be asked.",
            "s",
            now("max by (account) (meteo_account_paused_seconds)", "{{account}}"),
            span=6,
            height=8,
            steps=((None, GOOD), (1, WARN)),
        ),
    ]


def _reconciliation() -> Row:
    return "Reconciliation", [
        figures(
            "Mismatches",
            "Between Kafka, PostgreSQL, HDFS and HBase, at one cut. ./meteo reconcile names each with its numbers.",
            "short",
            now('meteo_reconcile_mismatches{job="aggregate"}', "mismatches"),
            span=6,
            height=6,
            steps=((None, GOOD), (1, BAD)),
        ),
        graph(
            "Days by what was found",
            "Clean: all tiers have the same. Pending: rows above the cut. Expired: only its counts are kept.",
            "short",
            over_time('sum by (state) (meteo_reconciled_days{job="aggregate"})', "{{state}}"),
            span=12,
            height=6,
            stacked=True,
            low=0,
        ),
        figures(
            "Last reconciled",
            "How long ago the tiers were last counted.",
            "s",
            now('time() - meteo_reconcile_last_timestamp_seconds{job="aggregate"}', "ago"),
            span=6,
            height=6,
            steps=((None, GOOD), (3600, WARN), (7200, BAD)),
        ),
    ]
