"""The page: what the tiers hold and how the pipeline stands, for people and for machines, read only."""
