"""What the services of meteo share: the message, settings, errors, logging, metrics, the database."""
