from typing import Any

class Lane:
    head: bytes
    seq: int
    def __init__(self, head: bytes) -> None: ...

def publish(
    frame: bytes | str,
    lanes: dict[str, Lane],
    latest: dict[str, bytes],
    dirty: dict[str, None],
    middle: bytes,
    end: bytes,
    /,
) -> list[bytes] | None: ...
def keep(
    frame: bytes | str, kept: dict[str, tuple[Any, float, int]], received_at: float, /
) -> int | None: ...
