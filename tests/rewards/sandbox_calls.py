"""What the tests make a sandbox worker do."""

import ctypes
import os
import signal
import sys
import time


def echo(value):
    return value


def fail(text):
    raise ValueError(text)


def spin():
    while True:
        pass


def sleep():
    time.sleep(60)


def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def c_loop():
    return len(str(pow(7, 10**9)))


def eat():
    blocks = []
    while True:
        blocks.append(bytearray(32 * 2**20))


def die():
    os._exit(3)


def segfault():
    ctypes.string_at(0)


def write(path):
    with open(path, "w") as file:
        file.write("x" * 100)


def noisy():
    print("noise")
    sys.stderr.write("noise")
    os.write(1, b"noise\n")
    return "quiet"
