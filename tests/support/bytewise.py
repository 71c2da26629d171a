"""Whether this processor, as torch uses it, multiplies bytes rightly: known without our digits."""

import torch


def multiplies_bytes() -> bool:
    """Extreme and random int8 matrices against int64, on a processor that claims instructions.

    If it does and `diveqcodec.exact.products` is not usable, that is a fault of ours.
    """
    claims = getattr(torch.cpu, "_is_vnni_supported", bool)
    if not (hasattr(torch, "_int_mm") and claims()):
        return False
    generator = torch.Generator().manual_seed(3)
    for rows, inputs, outputs in ((1, 1, 1), (3, 37, 5), (40, 2600, 36)):
        left = torch.randint(-128, 128, (rows, inputs), generator=generator)
        right = torch.randint(-128, 128, (inputs, outputs), generator=generator)
        pairs = [(left, right)]
        for one in (-128, 127):
            pairs += [(left * 0 + one, right * 0 + other) for other in (-128, 127)]
        for a, b in pairs:
            if not torch.equal(torch._int_mm(a.to(torch.int8), b.to(torch.int8)).long(), a @ b):
                return False
    return True
