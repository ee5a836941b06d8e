"""The core's log lines, handed to ``logging`` in batches. No handlers are installed: that is the program's affair."""

from __future__ import annotations

import logging

from . import _native

logger = logging.getLogger("acb_sdk")

_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG, 5: logging.DEBUG}


def attach() -> None:
    """Asks the core for what the logger wants now. Called by each connect."""
    if logger.isEnabledFor(logging.DEBUG):
        level = 4
    elif logger.isEnabledFor(logging.INFO):
        level = 3
    elif logger.isEnabledFor(logging.WARNING):
        level = 2
    else:
        level = 1
    _native.set_log_level(level)


def flush() -> None:
    """Hands over what the core has said."""
    lines, dropped = _native.drain_logs()
    for level, target, text in lines:
        logger.log(_LEVELS.get(level, logging.DEBUG), "%s: %s", target, text)
    if dropped:
        logger.warning("%d lines of the core's log were dropped", dropped)
