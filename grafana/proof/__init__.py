"""The proof of the dashboards without a Grafana server: their queries filled in, run, and the answers drawn."""
