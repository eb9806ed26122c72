"""Whether the endpoints of judges and rewriters answer, before anything is paid for."""

import os
from collections.abc import Iterable, Mapping

from implicit_tuning.experiment.costs.endpoint_calls import endpoint_of
from implicit_tuning.nodes.node import Node

TIMEOUT_S = 10
NO_KEY = "none"  # a local server needs no key, but the client sends one always
# A server without a list of models, or one that is busy, is there all the same.
ANSWERS = frozenset({404, 405, 429})
REFUSES = frozenset({401, 403})


def endpoint_problems(waiting: Iterable[Node]) -> list[str]:
    """What is wrong with the endpoints that nodes still need: a missing or refused key, no answer,
    a model that it does not have. Each is asked once, for its list of models, which is free."""
    nodes = {who: node for node in waiting if (who := endpoint_of(node)) is not None}
    return [problem for who, node in nodes.items() if (problem := _problem(who, node)) is not None]


def _problem(who: str, node: Node) -> str | None:
    variable, address = node.runtime["api_key_env"], node.runtime["base_url"]
    key = os.environ.get(variable, "").strip()
    address = address or os.environ.get("OPENAI_BASE_URL")
    if not key and not address:
        return (
            f"{who}.api_key_env: the environment variable {variable} is not set: put the "
            "endpoint's key there, or give the base_url of a server that needs none"
        )
    if not key.isascii() or not key.isprintable():
        return f"{who}.api_key_env: {variable} holds characters that no key has: correct it"
    settings = node.settings["judge" if node.stage == "judge" else "rephrase"]
    return _ask(who, address, key, variable, settings["model"])


def _ask(who: str, address: str | None, key: str, variable: str, model: str) -> str | None:
    import openai

    client = openai.OpenAI(
        api_key=key or NO_KEY, base_url=address, max_retries=0, timeout=TIMEOUT_S
    )
    # Only the host: a secret may stand in the rest of an address.
    where = f"{who}.base_url: {client.base_url.host}"
    try:
        content = client.get("/models", cast_to=object)
    except openai.APIStatusError as error:
        status = error.status_code
        if status in ANSWERS:
            return None
        if status in REFUSES:
            has = "holds a key that it does not accept" if key else "is not set"
            return f"{who}.api_key_env: {client.base_url.host} answers {status}: {variable} {has}"
        return f"{where} answers {status}: see to the server, or correct the address"
    except openai.APIConnectionError as error:
        reason = type(error.__cause__ or error).__name__
        return f"{where} does not answer ({reason}): start the server, or correct the address"
    finally:
        client.close()
    return _missing_model(who, content, model)


def _missing_model(who: str, content: object, model: str) -> str | None:
    """Whether the endpoint lists models, and not the one that is asked for."""
    listed = content.get("data") if isinstance(content, Mapping) else None
    names = [m["id"] for m in listed or () if isinstance(m, Mapping) and "id" in m]
    if not names or model in names:
        return None
    return (
        f"{who}.model: the endpoint has no '{model}', but {', '.join(sorted(names)[:5])}: take one"
    )
