-- What the batch tier plans, has done, and still owes.

CREATE TABLE platform (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
COMMENT ON TABLE platform IS 'Facts fixed once: weather_timezone, by the first export.';

CREATE TABLE export_positions (
    topic_generation INT NOT NULL REFERENCES topics (generation),
    partition        INT NOT NULL,
    next_offset      BIGINT NOT NULL,
    PRIMARY KEY (topic_generation, partition)
);
COMMENT ON COLUMN export_positions.next_offset IS 'The first offset that no plan covers yet.';

CREATE TABLE export_plans (
    plan_id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_generation INT NOT NULL REFERENCES topics (generation),
    partition        INT NOT NULL,
    from_offset      BIGINT NOT NULL,
    to_offset        BIGINT NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at      TIMESTAMPTZ,
    UNIQUE (topic_generation, partition, from_offset),
    CHECK (to_offset > from_offset)
);
COMMENT ON TABLE export_plans IS 'A range of offsets to export; committed before HDFS is touched, finished when every day of it is.';

CREATE TABLE export_plan_days (
    plan_id      BIGINT NOT NULL REFERENCES export_plans (plan_id),
    day          DATE NOT NULL,
    rows         BIGINT NOT NULL,
    first_observed_at TIMESTAMPTZ NOT NULL,
    last_observed_at  TIMESTAMPTZ NOT NULL,
    published_at TIMESTAMPTZ,
    PRIMARY KEY (plan_id, day)
);
CREATE INDEX export_plan_days_open ON export_plan_days (day) WHERE published_at IS NULL;

CREATE TABLE days (
    day                DATE PRIMARY KEY,
    files_version      BIGINT NOT NULL DEFAULT 0,
    aggregated_version BIGINT NOT NULL DEFAULT 0,
    generation         BIGINT NOT NULL DEFAULT 0,
    published_generation BIGINT NOT NULL DEFAULT 0,
    hbase_generation   BIGINT NOT NULL DEFAULT 0,
    hbase_stations     TEXT[] NOT NULL DEFAULT '{}',
    changed_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
    aggregated_at      TIMESTAMPTZ
);
COMMENT ON COLUMN days.files_version IS 'Grows with each change of the day''s files; the day is changed while it is above aggregated_version.';
COMMENT ON COLUMN days.generation IS 'The last generation given out to aggregates of the day, in ms, growing.';
COMMENT ON COLUMN days.published_generation IS 'The generation of the aggregates that lie in HDFS.';
COMMENT ON COLUMN days.hbase_generation IS 'The generation that HBase holds in whole; below published_generation, HBase is owed the day.';
COMMENT ON COLUMN days.hbase_stations IS 'Stations that may have a row of the day in HBase.';
