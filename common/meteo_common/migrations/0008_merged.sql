-- Which days are merged already, so that a run need not look at all of them.

ALTER TABLE days ADD COLUMN merged_version BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN days.merged_version IS 'The files_version whose files were merged into one; 0 before that.';
