"""The command line ./meteo: every service, and what operates the stack."""
