"""MBPP (`google-research-datasets/mbpp`, config full, split train): short Python functions.

    {"task_id": 601, "text": "Write a function to double each number of a list.",
     "code": "def double(numbers):\\r\\n\\treturn [2 * n for n in numbers]",
     "test_list": ["assert double([1, 2]) == [2, 4]"], "test_setup_code": "",
     "challenge_test_list": []}

The tests are not used.
"""

import re
from collections.abc import Mapping

from implicit_tuning.data.rows import Message, UnusableRow, required_text, single_turn

COLUMNS = {"text": str, "code": str}
FIRST_OF_TRAIN = 601
MARK = "has a line of Python code"
CODE_LINE = re.compile(
    r"^(def \w+\s*\(|class \w+\s*[(:]|import \w+(\.\w+)*\s*(as \w+)?$|from [\w.]+ import )",
    re.MULTILINE,
)


def to_messages(row: Mapping) -> list[Message]:
    """The task and its code.

    PAPER: the code is taken as it is. 373 of the 374 codes end their lines in CRLF and some indent
    with tabs, so the model learns that too; the authors' numbers were made this way. Outer white
    space (131 codes) is stripped by the chat format.

    Raises:
        UnusableRow: no text, no code, or a task of another split: upstream's single file has all
            974, and 1-600 are those of prompting, test and validation.
    """
    if isinstance(row.get("task_id"), int) and row["task_id"] < FIRST_OF_TRAIN:
        raise UnusableRow(f"task_id below {FIRST_OF_TRAIN}, not of split train")
    return single_turn(required_text(row, "text"), required_text(row, "code"))


def has_mark(response: str) -> bool:
    """Whether a line of a response opens a function or a class of Python, or imports a module."""
    return CODE_LINE.search(response.replace("\r\n", "\n")) is not None
