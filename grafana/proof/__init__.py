"""The proof of the dashboards without a Grafana server: their JSON's queries filled in, run, and their answers drawn."""
