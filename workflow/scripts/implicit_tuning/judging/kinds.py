"""The kinds of judge, one row each: what config and plan must know without importing them.

A new judge is one file beside this one, named after its kind, one row here, its keys in
config/schema.yaml, and the call that makes it in `making`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")
# AlpacaEval draws the positions and counts the wins of every comparison.
ALWAYS = ("alpaca-eval",)
LENGTH_CONTROL_LIBRARIES = ("scikit-learn", "patsy", "pandas", "numpy")
# Every kind's: how a comparison uses its verdicts. In the key of the comparison, not in the judge's
# identity, by which verdicts are kept: a change counts them anew and asks for none again.
COMPARISON = {"both_orders": False, "length_controlled": False, "max_failed": 0}
# Every kind's: local files. Like a `path`, they are in keys by their content.
FILES = ("df_gamed", "calibration")
# Of a judge that runs a model of its own: where that is, its size, and under which terms.
OWN_MODEL = ("path", "hub", "shape", "licence", "gated")


@dataclass(frozen=True)
class Kind:
    """One kind of judge.

    Attributes:
        required: keys of its config entry that decide verdicts and have no default.
        decides: further keys that decide verdicts, with their defaults; null is none.
        runtime: keys that decide no verdict, with their defaults: speed, patience, money, address.
        together: keys that need others beside them.
        libraries: distributions whose versions decide verdicts.
        chat: whether it writes prompts in the experiment's own chat format.
        truth: whether its verdicts are right by construction, so that nothing calibrates it.
        own_model: whether it runs a model of its own, from a folder (`path`) or the hub (`hub`).
    """

    required: tuple[str, ...] = ()
    decides: Mapping[str, object] = field(default_factory=dict)
    runtime: Mapping[str, object] = field(default_factory=dict)
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    chat: bool = False
    truth: bool = False
    own_model: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Every key that an entry of this kind may have."""
        own = {"kind", *self.required, *self.decides, *self.runtime}
        return frozenset({*own, *COMPARISON, *FILES, *(OWN_MODEL if self.own_model else ())})

    @property
    def loads_base(self) -> bool:
        """Whether it runs one of the experiment's bases."""
        return "base" in self.required


KINDS: Mapping[str, Kind] = {
    "oracle": Kind(truth=True),
    "mean_logprob": Kind(("base", "batch_size"), libraries=MODEL_LIBRARIES, chat=True),
    "hf_logits": Kind(
        required=("batch_size", "dtype", "device"),
        decides={"max_output_characters": 20_000},
        libraries=MODEL_LIBRARIES,
        own_model=True,
    ),
    "openai": Kind(
        required=("model",),
        decides={
            "temperature": 0.0,
            "max_tokens": 1,
            "logprobs": "auto",
            "top_logprobs": 5,
            "max_output_characters": 20_000,
        },
        runtime={
            "base_url": None,
            "api_key_env": "OPENAI_API_KEY",
            "concurrency": 8,
            "requests_per_minute": None,
            "timeout_s": 60.0,
            "max_retries": 6,
            "max_usd": None,
            "usd_per_million_input_tokens": None,
            "usd_per_million_output_tokens": None,
        },
        together={
            "max_usd": ("usd_per_million_input_tokens", "usd_per_million_output_tokens"),
            "usd_per_million_input_tokens": ("usd_per_million_output_tokens",),
            "usd_per_million_output_tokens": ("usd_per_million_input_tokens",),
        },
    ),
}


def identity_settings(entry: Mapping[str, object]) -> dict[str, object]:
    """Returns what of a judge's config entry decides verdicts, with defaults filled in."""
    kind = KINDS[entry["kind"]]
    deciding = ("kind", *kind.required, *kind.decides)
    given = {key: entry[key] for key in deciding if key in entry}
    return {**kind.decides, **given}


def runtime_settings(entry: Mapping[str, object]) -> dict[str, object]:
    """Returns the rest of the entry, with defaults filled in."""
    defaults = KINDS[entry["kind"]].runtime
    return {key: entry.get(key, default) for key, default in defaults.items()}


def comparison_settings(entry: Mapping[str, object]) -> dict[str, object]:
    """Returns how comparisons use the entry's verdicts, with defaults filled in."""
    return {key: entry.get(key, default) for key, default in COMPARISON.items()}
