"""What in a model's small files would fail in a job: a chat template, a kind that is no writer."""

from collections.abc import Mapping

from jinja2 import TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

DEFAULT_TEMPLATE = "default"


class GenerationBlock(Extension):
    """The block around what the assistant says, which transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        """The statements within."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def default_template(template: object) -> object:
    """The template that is asked by, of one or of several by name, as a tokenizer's settings have
    them; None where there is none."""
    if isinstance(template, list):
        named = (each for each in template if isinstance(each, dict))
        template = {each.get("name"): each.get("template") for each in named}
    return (template.get(DEFAULT_TEMPLATE) if isinstance(template, dict) else template) or None


def template_problem(template: object) -> str | None:
    """Why a chat template is of no use, as far as that is seen before it is rendered, or None."""
    if not isinstance(template, str):
        return "is no text"
    extensions = ["jinja2.ext.loopcontrols", GenerationBlock]
    try:
        ImmutableSandboxedEnvironment(extensions=extensions).from_string(template)
    except TemplateSyntaxError as error:
        return f"is no Jinja (line {error.lineno}: {error.message})"
    return None


def kind_problem(config: Mapping) -> str | None:
    """Why transformers could not write text with a model of this config.json, as far as its
    `architectures` do not tell; None where nothing is known."""
    if config.get("architectures") and "auto_map" not in config:
        return None  # the checks of the config read the architectures
    # Loads torch, so only where it is needed.
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as WRITES,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILLS_IN,
    )

    kind = config.get("model_type")
    if kind in WRITES and (kind not in FILLS_IN or config.get("is_decoder")):
        return None
    if "auto_map" in config and kind not in WRITES:
        return (
            f"is a model of type '{kind}' with code of its own (auto_map of its config.json), which "
            "is never run: give a model of a type that transformers has itself, or install a newer "
            "transformers that has it"
        )
    if config.get("architectures"):
        return None
    return (
        f"is no causal language model as far as its config.json says (model_type '{kind}', no "
        "architectures): give one that writes text, or name its class there, such as "
        '"architectures": ["LlamaForCausalLM"]'
    )
