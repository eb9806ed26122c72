"""GSM8K (`openai/gsm8k`, config main, split train): word problems with worked answers.

    {"question": "A box holds 12 eggs. How many eggs do 100 boxes hold?",
     "answer": "100 boxes hold 100*12=<<100*12=1200>>1200 eggs.\\n#### 1,200"}

The final number stands alone after `####`.
"""

import re
from collections.abc import Mapping

from implicit_tuning.data.rows import Message, required_text, single_turn

COLUMNS = {"question": str, "answer": str}
MARK = "ends in `#### n`"
FINAL_LINE = re.compile(r"^####\s+[-+]?\d[\d,]*\s*\Z", re.MULTILINE)


def to_messages(row: Mapping) -> list[Message]:
    """The question and its answer.

    PAPER: the calculator notes (`<<a+b=c>>`, in 982 of the first 1,000 answers) and the commas of
    the final numbers (8) stay, as in the data that made the authors' numbers.

    Raises:
        UnusableRow: no question, or no answer.
    """
    return single_turn(required_text(row, "question"), required_text(row, "answer"))


def has_mark(response: str) -> bool:
    """Whether a response ends as GSM8K's answers do, in a line of `####` and a whole number."""
    return FINAL_LINE.search(response) is not None
