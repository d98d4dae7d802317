"""The process in which decord runs, writing frames to stdout.

It imports nothing of malmm, so that it works wherever its parent does.
"""

import json
import os
import struct
import sys

import decord

HEADER = struct.Struct("=qqdqq")  # as in decord.py


def main() -> None:
    """Read the request from stdin and answer it batch by batch.

    While a reader exists it decodes ahead without bound, so it never waits for anyone to take a
    picture: it is deleted first.
    """
    request = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decord prints to stdout
    indices, size = request["indices"], request["batch"]
    path = request["path"]
    if os.name == "posix":  # hides a name that decord takes for an address or a pattern
        path = f"/dev/fd/{os.open(path, os.O_RDONLY)}"
    for first in range(0, len(indices), size):
        reader = decord.VideoReader(path, num_threads=request["threads"])
        length = len(reader)
        begin = reader.get_frame_timestamp(0)[0]
        batch = []
        for index in indices[first : first + size]:
            seconds = reader.get_frame_timestamp(index)[0] - begin
            batch.append((index, seconds, reader[index].asnumpy()))
        del reader
        if any(pixels.shape[2] != 3 for _, _, pixels in batch):  # seen where the width is 16
            raise ValueError("not RGB")
        for index, seconds, pixels in batch:
            out.write(HEADER.pack(length, index, seconds, *pixels.shape[:2]))
            out.write(pixels.tobytes())
        out.flush()


if __name__ == "__main__":
    main()
