"""Attempts: lease, open, first byte, failover, keep-alive, cancel."""
