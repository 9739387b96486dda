"""Spans of time as progress lines show them."""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:07:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
