"""PostgreSQL → HDFS → MapReduce → HBase."""
