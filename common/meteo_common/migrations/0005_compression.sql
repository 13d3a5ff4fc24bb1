-- A message with its forecast is 12 KB and is compressed before it is stored. lz4 does that several times faster than
-- pglz, PostgreSQL's default, and what reads the values gets them sooner; benchmarks/README.md has the figures.
-- Rows that are there already stay as they are, and readable.
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT relid FROM pg_partition_tree('weather') LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN value SET COMPRESSION lz4', month);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'This PostgreSQL was built without lz4: weather stays compressed by pglz.';
END
$$;
