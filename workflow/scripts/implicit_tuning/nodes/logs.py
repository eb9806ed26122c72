"""The package's own messages on the terminal, or in the log of a job."""

import logging
import sys

from implicit_tuning.nodes.code import PACKAGE


def show_messages() -> None:
    """Sends the package's messages, plans and single failures among them, to standard error.

    Only ours: alpaca-eval lowers the level of the root logger, and HTTP clients name every request.
    """
    logger = logging.getLogger(PACKAGE)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
