"""Config keys of a judge or rewriter behind an endpoint: address, patience and money.

None of them decides an answer, so none is in a key.
"""

from collections.abc import Mapping
from typing import Any

_PRICE = {"type": ["number", "null"], "minimum": 0, "default": None}
# JSON schema of each key.
KEYS: Mapping[str, Mapping[str, Any]] = {
    # No name or password in the address: secrets are in the environment.
    "base_url": {"type": ["string", "null"], "pattern": r"^https?://[^@\s]+$", "default": None},
    "api_key_env": {
        "type": "string",
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        "default": "OPENAI_API_KEY",
    },
    "concurrency": {"type": "integer", "minimum": 1, "default": 8},
    "requests_per_minute": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": None},
    "timeout_s": {"type": "number", "exclusiveMinimum": 0, "default": 60.0},
    "max_retries": {"type": "integer", "minimum": 0, "default": 6},
    "max_usd": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": None},
    "usd_per_million_input_tokens": _PRICE,
    "usd_per_million_output_tokens": _PRICE,
}
DEFAULTS: Mapping[str, Any] = {key: schema["default"] for key, schema in KEYS.items()}
# Keys that need others beside them.
TOGETHER: Mapping[str, tuple[str, ...]] = {
    "max_usd": ("usd_per_million_input_tokens", "usd_per_million_output_tokens"),
    "usd_per_million_input_tokens": ("usd_per_million_output_tokens",),
    "usd_per_million_output_tokens": ("usd_per_million_input_tokens",),
}
