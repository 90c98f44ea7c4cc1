"""What holds for every test: none sees how another one left the loggers."""

import logging

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Making an application sets up the process' logging; put back what was before the test."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    before = {name: _state(logging.getLogger(name)) for name in ("", *root.manager.loggerDict)}
    try:
        return (yield)
    finally:
        root.handlers[:] = handlers
        for name in ("", *root.manager.loggerDict):
            logger = logging.getLogger(name)
            level, logger.propagate, logger.disabled = before.get(name, (0, True, False))
            logger.setLevel(level)


def _state(logger):
    return logger.level, logger.propagate, logger.disabled
