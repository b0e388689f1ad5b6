"""The smallest FUSE server: an empty root directory; on SIGUSR1 it answers nothing any more.

Speaks the kernel's protocol 7.x over /dev/fuse (linux/fuse.h), read in the
words of ``struct``; needs no library.
"""

import ctypes
import os
import signal
import struct
import sys

LOOKUP, GETATTR, OPEN, STATFS, INIT, OPENDIR, READDIR, FORGET, INTERRUPT = 1, 3, 14, 17, 26, 27, 28, 2, 36
NO_ANSWER = (FORGET, 42, INTERRUPT)
ENOENT, ENOSYS = 2, 38
IS_SILENT = False


def attributes() -> bytes:
    """A directory, of root, mode 0755; valid for no time, so that every look asks again."""
    inode = struct.pack("<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o040755, 2, 0, 0, 0, 4096, 0)
    return struct.pack("<QII", 0, 0, 0) + inode


def answer(opcode: int, body: bytes) -> tuple[int, bytes]:
    if opcode == INIT:
        _, minor, readahead = struct.unpack_from("<III", body)
        return 0, struct.pack("<IIIIHHIIHHI28x", 7, min(minor, 31), readahead, 0, 16, 12, 4096, 1, 0, 0, 0)
    if opcode == GETATTR:
        return 0, attributes()
    if opcode == STATFS:
        return 0, struct.pack("<QQQQQIIIIII20x", 100, 50, 50, 100, 50, 4096, 255, 4096, 0, 0, 0)[:80]
    if opcode in (OPEN, OPENDIR):
        return 0, struct.pack("<QII", 1, 0, 0)
    if opcode == READDIR:
        return 0, b""
    return (-ENOENT, b"") if opcode == LOOKUP else (-ENOSYS, b"")


def fall_silent(number: int, frame: object) -> None:
    global IS_SILENT
    IS_SILENT = True
    os.write(1, b"silent\n")


def serve(point: str) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"dying:/export", point.encode(), b"fuse.nfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    os.write(1, b"mounted\n")
    signal.signal(signal.SIGUSR1, fall_silent)
    while True:
        try:
            request = os.read(fuse, 1 << 18)
        except FileNotFoundError:
            continue  # interrupted before it was read
        except OSError:
            return  # unmounted
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if IS_SILENT or opcode in NO_ANSWER:
            continue
        error, data = answer(opcode, request[40:])
        os.write(fuse, struct.pack("<IiQ", 16 + len(data), error, unique) + data)


if __name__ == "__main__":
    serve(sys.argv[1])
