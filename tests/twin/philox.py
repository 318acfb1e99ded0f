"""core/rng.h and data/shards/permutation.h in NumPy: the same draws, whatever the grid."""

import numpy as np

MASK = (1 << 32) - 1


def philox4x32(counter, seed):
    """Philox4x32-10: counter is four uint64 arrays (or numbers) below 2^32; returns the same."""
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = seed & MASK, seed >> 32 & MASK
    low, shift = np.uint64(MASK), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = p1 >> shift ^ c1 ^ np.uint64(k0), p1 & low, p0 >> shift ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return c0, c1, c2, c3


def stream_of(name):
    """64-bit FNV-1a of a logical name."""
    value = 0xCBF29CE484222325
    for c in name.encode():
        value = (value ^ c) * 0x100000001B3 & (1 << 64) - 1
    return value


def normals(seed, name, count):
    """float32 (count): elements 0 to count - 1 of a tensor's draws. Logarithm and cosine are rounded from double, so that a
    few may differ from the C library's float functions in the last bit."""
    index, stream = np.arange(count, dtype=np.uint64), stream_of(name)
    x = philox4x32((index & np.uint64(MASK), index >> np.uint64(32), stream & MASK, stream >> 32), seed)
    u = ((x[0] >> np.uint64(8)).astype(np.float32) + np.float32(1)) * np.float32(2.0**-24)
    angle = np.float32(6.28318530717958647) * ((x[1] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24))
    root = np.sqrt(np.float32(-2) * np.log(u.astype(np.float64)).astype(np.float32))
    return root * np.cos(angle.astype(np.float64)).astype(np.float32)


def permuted(n, seed, epoch, places):
    """pi_{seed, epoch} of [0, n) at `places`: a Feistel network over pairs, walked on until it is below n."""
    a = int(np.ceil(np.sqrt(n)))
    a += (a * a < n) - ((a - 1) * (a - 1) >= n)
    b = (n + a - 1) // a

    def round_value(number, half):
        x = philox4x32((half, number, epoch & MASK, epoch >> 32), seed)
        return (x[1] << np.uint64(32) | x[0]) >> np.uint64(2)

    at = np.array(places, dtype=np.uint64)
    todo = np.ones(at.shape, dtype=bool)
    while todo.any():
        left, right = at[todo] // np.uint64(b), at[todo] % np.uint64(b)
        for pair in range(4):
            left = (left + round_value(2 * pair, right)) % np.uint64(a)
            right = (right + round_value(2 * pair + 1, left)) % np.uint64(b)
        at[todo] = left * np.uint64(b) + right
        todo = at >= np.uint64(n)
    return at.astype(np.int64)
