"""Kafka → PostgreSQL."""
