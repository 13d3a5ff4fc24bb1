-- Answers found by an index, records sent again, months taken out.

-- The newest message of a place, and a place's range of time.
CREATE INDEX weather_station ON weather ((value->>'station_id'), date_time DESC);

-- Messages of which the producer set a value to null; over the whole value it would cost more than the rows themselves.
CREATE INDEX weather_quality ON weather USING gin ((value->'quality') jsonb_path_ops);

CREATE VIEW weather_months AS
SELECT relname::text AS name, bounds[1]::timestamptz AS first, bounds[2]::timestamptz AS after
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
    regexp_match(pg_get_expr(relpartbound, inhrelid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
WHERE inhparent = 'weather'::regclass;
COMMENT ON VIEW weather_months IS 'The partitions of weather: UTC months from first up to, not including, after.';

ALTER TABLE dead_letters
    ADD COLUMN replay_started_at TIMESTAMPTZ,
    ADD COLUMN replayed_at TIMESTAMPTZ,
    ADD COLUMN replay_partition INT,
    ADD COLUMN replay_offset BIGINT,
    ADD CHECK ((state = 'replayed') = (replayed_at IS NOT NULL));
COMMENT ON COLUMN dead_letters.replay_started_at IS 'Set before the record is sent again; without replayed_at, the topic itself knows whether it was.';
COMMENT ON COLUMN dead_letters.replay_offset IS 'Where the new record lies in the topic, with replay_partition.';

CREATE TABLE detached_months (
    name        TEXT PRIMARY KEY,
    first       TIMESTAMPTZ NOT NULL,
    rows        BIGINT NOT NULL,
    detached_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    dropped_at  TIMESTAMPTZ
);
COMMENT ON TABLE detached_months IS 'Months that retention took out of weather; name is that of the table, first its UTC month.';

CREATE TABLE detached_partition_rows (
    name             TEXT NOT NULL REFERENCES detached_months (name),
    topic_generation INT NOT NULL,
    partition        INT NOT NULL,
    rows             BIGINT NOT NULL,
    PRIMARY KEY (topic_generation, partition, name)
);
CREATE TABLE detached_day_rows (
    name TEXT NOT NULL REFERENCES detached_months (name),
    day  DATE NOT NULL,
    rows BIGINT NOT NULL,
    PRIMARY KEY (day, name)
);
COMMENT ON TABLE detached_partition_rows IS 'What a detached month still stands for when records are counted by partition.';
COMMENT ON TABLE detached_day_rows IS 'What a detached month still stands for when rows are counted by day, in WEATHER_TIMEZONE.';
