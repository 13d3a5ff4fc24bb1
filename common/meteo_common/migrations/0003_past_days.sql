-- What was asked about the past, and answers that could not be understood when they came.

CREATE TABLE collections (
    source       TEXT NOT NULL,
    place        TEXT NOT NULL,
    day          DATE NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('done', 'empty', 'failed')),
    rows         INT NOT NULL DEFAULT 0,
    cost         DOUBLE PRECISION NOT NULL DEFAULT 0,
    collected_at TIMESTAMPTZ NOT NULL,
    error        TEXT,
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (source, place, day),
    CHECK ((state = 'failed') = (error IS NOT NULL))
);
COMMENT ON TABLE collections IS 'Past days by what became of asking for them: a day that is done is not asked for again.';
COMMENT ON COLUMN collections.place IS 'As in CITY, with its coordinates: Name,CC@latitude,longitude.';
COMMENT ON COLUMN collections.rows IS 'Messages that Kafka acknowledged.';
COMMENT ON COLUMN collections.cost IS 'The day''s share of its calls, in the unit of the provider''s budget.';

CREATE TABLE raw_responses (
    raw_response_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          TEXT NOT NULL,
    city            TEXT NOT NULL,
    country         TEXT NOT NULL,
    latitude        DOUBLE PRECISION,
    longitude       DOUBLE PRECISION,
    units           TEXT,
    collected_at    TIMESTAMPTZ NOT NULL,
    body            BYTEA NOT NULL,
    reason          TEXT NOT NULL,
    received_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    normalised_at   TIMESTAMPTZ
);
COMMENT ON TABLE raw_responses IS 'Answers that were refused, kept for RAW_RESPONSES_DAYS, so that a later version may understand them.';
COMMENT ON COLUMN raw_responses.body IS 'UTF-8 JSON of the answers by their names in raw; JSONB could not hold every one.';
COMMENT ON COLUMN raw_responses.units IS 'The units asked for, where the answers do not name them.';
CREATE UNIQUE INDEX raw_responses_once ON raw_responses (source, city, country, collected_at, md5(body));
CREATE INDEX raw_responses_received ON raw_responses (received_at);
