-- What Kafka's records become.

CREATE TABLE topics (
    generation    INT PRIMARY KEY,
    topic_id      UUID NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE topics IS 'One row per topic as it was created: deleted and made again, it has a new id and generation.';

CREATE TABLE positions (
    topic_id        UUID NOT NULL REFERENCES topics (topic_id),
    partition       INT NOT NULL,
    first_offset    BIGINT NOT NULL,
    next_offset     BIGINT NOT NULL,
    control_records BIGINT NOT NULL DEFAULT 0,
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition),
    CHECK (next_offset >= first_offset)
);
COMMENT ON COLUMN positions.next_offset IS 'The first offset not yet taken; moves in the transaction of the rows before it.';
COMMENT ON COLUMN positions.control_records IS 'Offsets that carry no record: transaction markers and compacted records.';

CREATE TABLE gaps (
    topic_id    UUID NOT NULL REFERENCES topics (topic_id),
    partition   INT NOT NULL,
    from_offset BIGINT NOT NULL,
    to_offset   BIGINT NOT NULL,
    noticed_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition, from_offset),
    CHECK (to_offset > from_offset)
);
COMMENT ON TABLE gaps IS 'Offsets that Kafka had deleted before they were taken.';

CREATE TABLE weather (
    date_time        TIMESTAMPTZ NOT NULL,
    msg_offset       BIGINT NOT NULL,
    partition        INT NOT NULL,
    topic_generation INT NOT NULL,
    value            JSONB NOT NULL
) PARTITION BY RANGE (date_time);
COMMENT ON TABLE weather IS 'One row per valid Kafka record, partitioned by UTC month of the observation.';
-- date_time is a function of the record, so that with the partition key in it the index still says: once per record.
CREATE UNIQUE INDEX weather_record ON weather (topic_generation, partition, msg_offset, date_time);

CREATE TABLE dead_letters (
    dead_letter_id   BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    topic_generation INT NOT NULL,
    topic            TEXT NOT NULL,
    partition        INT NOT NULL,
    msg_offset       BIGINT NOT NULL,
    record_timestamp TIMESTAMPTZ,
    record_key       BYTEA,
    headers          JSONB NOT NULL,
    value            BYTEA,
    reason           TEXT NOT NULL,
    state            TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'replayed')),
    received_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_generation, partition, msg_offset)
);
COMMENT ON TABLE dead_letters IS 'Records that are not valid messages, byte for byte, each with its reason.';
