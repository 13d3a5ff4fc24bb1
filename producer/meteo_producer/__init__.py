"""Weather APIs → Kafka."""
