"""Why no further call of an endpoint makes sense. Judges and rewriters turn these into their own errors."""


class EndpointFailed(RuntimeError):
    """No further call makes sense; every later call raises it again."""


class EndpointRefused(EndpointFailed):
    """Every further call would fail too: the key, the model, the address or the quota is wrong."""


class CostCapReached(EndpointFailed):
    """The next call could pass `max_usd`, so it was not made."""


class UnusableLedger(EndpointFailed):
    """What was spent cannot be read or kept, so no further call may be made."""
