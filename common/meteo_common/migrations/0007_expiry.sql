-- Days whose data has gone from HDFS and HBase; what they held is still counted.

CREATE TABLE expired_days (
    day          DATE NOT NULL,
    begun_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    rows         BIGINT NOT NULL,
    observations BIGINT NOT NULL,
    files_version BIGINT NOT NULL,
    manifest     JSONB NOT NULL,
    expired_at   TIMESTAMPTZ,
    PRIMARY KEY (day, begun_at)
);
CREATE UNIQUE INDEX expired_days_open ON expired_days (day) WHERE expired_at IS NULL;
COMMENT ON TABLE expired_days IS 'What a day held when it expired; one that had late rows afterwards may expire again.';
COMMENT ON COLUMN expired_days.files_version IS 'That of the day then; while it is still the same, the day has no files.';
COMMENT ON COLUMN expired_days.manifest IS 'Which records the day had: they are not exported again.';
COMMENT ON COLUMN expired_days.expired_at IS 'NULL while the data is being deleted: the day''s directory, which goes all at once, says how far that is.';
