"""Kaggle food recipes (`Hieu-Pham/kaggle_food_recipes`, csv).

    ,Title,Ingredients,Instructions,Image_Name,Cleaned_Ingredients
    0,Toast,"['2 slices bread, thick']","Toast the bread.
    Serve.",toast-1,"['2 slices bread', 'thick']"

Ingredients are lists in Python's notation.
"""

import ast
import re
from collections.abc import Mapping

from implicit_tuning.data.rows import Message, UnusableRow, required_text, single_turn

# PAPER: the authors' script takes this column, which splits "2 slices bread, thick" at the comma,
# and not `Ingredients`.
INGREDIENTS = "Cleaned_Ingredients"
COLUMNS = {"Title": str, INGREDIENTS: str, "Instructions": str}
MARK = "opens with a list of `- item` lines"
OPENING_LIST = re.compile(r"(\s*- \S[^\n]*(\n|\Z)){2}")


def to_messages(row: Mapping) -> list[Message]:
    """`Recipe for {Title}`, answered by the list of ingredients and the instructions.

    DEVIATION: one blank line stands between the two; the authors' script leaves two.

    Raises:
        UnusableRow: no title, ingredients or instructions, or a malformed list.
    """
    title = required_text(row, "Title")
    instructions = required_text(row, "Instructions")
    lines = "".join(f" - {ingredient}\n" for ingredient in _ingredients(row))
    return single_turn(f"Recipe for {title}", f"{lines}\n{instructions}")


def has_mark(response: str) -> bool:
    """Whether a response opens as the recipes do, with at least two lines of ` - {ingredient}`.

    The first line may have lost its space to the chat format.
    """
    return OPENING_LIST.match(response) is not None


def _ingredients(row: Mapping) -> list[str]:
    literal = required_text(row, INGREDIENTS)
    try:
        # Reads literals only; what the row says is never run.
        ingredients = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UnusableRow(f"malformed {INGREDIENTS}") from None
    if not isinstance(ingredients, list) or not all(isinstance(i, str) for i in ingredients):
        raise UnusableRow(f"{INGREDIENTS} is not a list of texts")
    if not ingredients:
        raise UnusableRow(f"no {INGREDIENTS}")
    return ingredients
