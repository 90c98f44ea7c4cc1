"""CPU time of the gateway, measured in one run beside a bare pass-through."""
