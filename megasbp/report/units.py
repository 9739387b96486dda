"""Numbers as people read them."""

_PREFIXES = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")


def quantity(value: float) -> str:
    """Three or four significant digits and a decimal prefix: 1234567 -> "1.235M"."""
    value = float(value)
    power = 0
    while abs(value) >= 999.95 and power + 1 < len(_PREFIXES):
        value /= 1000
        power += 1
    if power == 0 and value == int(value):
        return f"{int(value)}"
    return f"{value:.4g}{_PREFIXES[power]}"
