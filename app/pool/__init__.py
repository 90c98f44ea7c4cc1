"""Accounts, locks, leases, cooldowns, rotation strategies, the state store."""
