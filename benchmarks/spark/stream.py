"""Structured Streaming from Kafka into PostgreSQL, one query for each line of JSON on standard input.

Generous to Spark: it validates nothing, keeps no dead letters, and its positions are not in the rows' transaction.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

ROWS_OF_A_BATCH = 10_000


def main() -> None:
    """Serve orders until standard input ends; says `{}` when ready."""
    logging.disable(logging.CRITICAL)
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("meteo-bench")
        .config("spark.jars", ",".join(str(jar) for jar in Path(sys.argv[1]).glob("*.jar")))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "2g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    _say({})
    for line in sys.stdin:
        started = time.monotonic()
        _stream(spark, json.loads(line))
        _say({"seconds": time.monotonic() - started})


def _stream(spark: SparkSession, order: dict[str, Any]) -> None:
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", order["bootstrap_servers"])
        .option("subscribe", order["topic"])
        .option("startingOffsets", "earliest")
        .load()
    )
    value = f.col("value").cast("string")
    rows = records.select(
        f.get_json_object(value, "$.observed_at").cast("timestamp").alias("date_time"),
        f.col("offset").alias("msg_offset"),
        f.col("partition"),
        f.lit(1).alias("topic_generation"),
        value.alias("value"),
    )

    def append(batch: DataFrame, _: int) -> None:
        (
            batch.write.format("jdbc")
            .option("url", order["url"])
            .option("user", order["user"])
            .option("password", order["password"])
            .option("driver", "org.postgresql.Driver")
            .option("dbtable", "weather")
            .option("batchsize", ROWS_OF_A_BATCH)
            .mode("append")
            .save()
        )

    with tempfile.TemporaryDirectory() as checkpoints:
        writer = rows.writeStream.foreachBatch(append).option("checkpointLocation", checkpoints)
        writer.trigger(availableNow=True).start().awaitTermination()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
