"""Logs, metrics, dashboard, command line."""
