-- A day's files merged into one, and its Parquet.

ALTER TABLE days
    ADD COLUMN merge_begun_at TIMESTAMPTZ,
    ADD COLUMN parquet_version BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN days.merge_begun_at IS 'Set while files of the day are merged: what they have become may not be in the manifest yet.';
COMMENT ON COLUMN days.parquet_version IS 'The files_version that the day''s Parquet was made of; 0 before there is one.';
