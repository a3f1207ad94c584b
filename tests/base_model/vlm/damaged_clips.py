"""Reads damaged copies of a clip and prints how many gave frames and how many were refused; anything else ends it.

A process of its own, for test_video_file.py, since what it looks for would end the tests: a crash of the decoder, a
hang, memory without bound.

    python -m tests.base_model.vlm.damaged_clips CLIP COUNT GIBIBYTES
"""

import random
import resource
import sys
from itertools import chain, pairwise
from pathlib import Path

from tests.base_model.vlm.clips import read_or_sentence

HEADER = 800
"""Bytes in which containers keep sizes, counts and formats: at the start, and for MP4 at the end."""
NUMBERS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy that is cut, or has flipped bits, random bytes in its header or index, an extreme number, or a piece
    twice."""
    data = bytearray(content)
    kind = rng.randrange(6)
    place = rng.randrange(len(data))
    if kind == 0:
        return content[: place + 1]
    if kind == 1:
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind in (2, 3):
        for _ in range(rng.randrange(1, 12)):
            offset = rng.randrange(min(HEADER, len(data)))
            data[offset if kind == 2 else -1 - offset] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
    elif kind == 4:
        data[place : place + 4] = rng.choice(NUMBERS)
    else:
        data[place:place] = data[place : place + rng.randrange(1, 200)]
    return bytes(data)


def main() -> None:
    path, count, gibibytes = sys.argv[1:]
    limit = int(gibibytes) << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    content, rng = Path(path).read_bytes(), random.Random(0)
    read = refused = 0
    for _ in range(int(count)):
        video = read_or_sentence(damaged(content, rng))
        if isinstance(video, str):
            refused += 1
            continue
        read += 1
        times = list(chain(*video.times))
        assert times
        assert all(a < b for a, b in pairwise(times))
        assert len(times) <= video.frame_count
        assert 0 <= times[0] <= times[-1] <= 600 * video.frame_count
    print(read, refused)


if __name__ == "__main__":
    main()
