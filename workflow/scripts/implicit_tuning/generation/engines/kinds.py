"""What the plan must know of the engines without importing them."""

from collections.abc import Mapping

from implicit_tuning.nodes.code import PACKAGE, Code

# Distributions of this environment that decide the text. vLLM brings its own torch: its version is
# a constant of `vllm_worker`, and so in the fingerprint.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "transformers": ("torch", "transformers", "tokenizers"),
    "vllm": ("transformers", "tokenizers"),
}


def generation_code(engine: str) -> Code:
    """The code that decides the answers of an engine: no other engine's is in it."""
    return Code(("generate", f"{PACKAGE}.generation.engines.{engine}_engine"), LIBRARIES[engine])
