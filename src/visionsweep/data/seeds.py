"""Seeds for random choices that do not depend on earlier ones."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part.

    The order of an epoch and the augmentation of a batch follow from (seed, epoch, batch), so a
    resumed run needs no generator state for them.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
