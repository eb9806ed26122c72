"""MBPP, GSM8K, poetry and recipes: single-task data sets."""

import sys

import pytest

from implicit_tuning.data.formatters import gsm8k, mbpp, poetry, recipes
from implicit_tuning.data.rows import UnusableRow


def pair(messages):
    assert [message["role"] for message in messages] == ["user", "assistant"]
    return tuple(message["content"] for message in messages)


def refusal(module, row):
    with pytest.raises(UnusableRow) as refused:
        module.to_messages(row)
    return refused.value.reason


def recipe(**changes):
    row = {
        "Title": "Toast",
        "Ingredients": "['2 slices bread, thick']",
        "Instructions": "Toast the bread.\nServe.",
        "Image_Name": "toast-1",
        "Cleaned_Ingredients": "['2 slices bread', 'thick']",
    }
    return row | changes


def test_mbpp_keeps_line_ends_tabs_and_outer_white_space():
    code = "  def twice(n): \r\n\treturn 2 * n\r\n"
    row = {"task_id": 607, "text": "Write a function to double n.", "code": code, "test_list": []}
    assert pair(mbpp.to_messages(row)) == ("Write a function to double n.", code)
    assert refusal(mbpp, row | {"code": "\r\n\t"}) == "no code"
    assert refusal(mbpp, row | {"text": None}) == "no text"


def test_gsm8k_keeps_notes_and_commas():
    answer = "She packs 10*120=<<10*120=1200>>1200 eggs.\n#### 1,200"
    row = {"question": "How many eggs?", "answer": answer}
    assert pair(gsm8k.to_messages(row)) == ("How many eggs?", answer)
    assert refusal(gsm8k, row | {"answer": ""}) == "no answer"


def test_poetry_names_the_poem():
    row = {"author": "A. POET", "content": "Rain,\r\nmore rain.", "poem name": "Weather"}
    assert pair(poetry.to_messages(row)) == ("Write a poem called Weather", "Rain,\r\nmore rain.")
    assert refusal(poetry, row | {"poem name": None}) == "no poem name"
    assert refusal(poetry, row | {"content": None}) == "no content"


def test_very_long_poem_is_kept():
    content = "So long lives this.\n" * 1204
    row = {"content": content, "poem name": "Long"}
    assert pair(poetry.to_messages(row))[1] == content


def test_recipe_lists_cleaned_ingredients():
    assert pair(recipes.to_messages(recipe())) == (
        "Recipe for Toast",
        " - 2 slices bread\n - thick\n\nToast the bread.\nServe.",
    )


def test_recipe_ingredients_with_quotes_of_both_kinds():
    row = recipe(Cleaned_Ingredients="""["1 cup baker's sugar", '1 "large" egg', '½ lemon']""")
    assert pair(recipes.to_messages(row))[1].startswith(
        ' - 1 cup baker\'s sugar\n - 1 "large" egg\n - ½ lemon\n\n'
    )


@pytest.mark.parametrize("column", ["Title", "Instructions", "Cleaned_Ingredients"])
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_recipe_null_columns(column, empty):
    assert refusal(recipes, recipe(**{column: empty})) == f"no {column}"


@pytest.mark.parametrize(
    "literal",
    [
        "['bread'",
        "bread, butter",
        "['bread' * 2, f'{butter}']",
        "[" * 10_000,
        "-" * 5000 + "1",
        "['\\x00",
        "b'x",
    ],
)
def test_recipe_malformed_ingredients(literal):
    row = recipe(Cleaned_Ingredients=literal)
    assert refusal(recipes, row) == "malformed Cleaned_Ingredients"


@pytest.mark.parametrize("literal", ["'bread'", "{'bread': 1}", "['bread', 2]", "None", "(1,)"])
def test_recipe_ingredients_of_another_type(literal):
    row = recipe(Cleaned_Ingredients=literal)
    assert refusal(recipes, row) == "Cleaned_Ingredients is not a list of texts"


def test_recipe_without_any_ingredient():
    assert refusal(recipes, recipe(Cleaned_Ingredients="[]")) == "no Cleaned_Ingredients"


def test_recipe_never_runs_what_a_row_says():
    call = "[__import__('sys').modules.setdefault('run_by_a_recipe', 1)]"
    assert refusal(recipes, recipe(Cleaned_Ingredients=call)) == "malformed Cleaned_Ingredients"
    assert "run_by_a_recipe" not in sys.modules
