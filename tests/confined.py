"""Run a program under the system call filter of a unit: python confined.py UNIT PROGRAM ARGUMENT..."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE_EPERM = 0x7FFF0000, 0x00050001
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refused(unit: str) -> set[str]:
    """Return the system calls that a unit's `SystemCallFilter=~…` lines take away."""
    names: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=~(.*)$", unit, re.MULTILINE):
        for name in line.split():
            names |= _of_group(name) if name.startswith("@") else {name}
    return names


def _of_group(group: str) -> set[str]:
    said = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = set()
    for line in said.stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            names |= _of_group(word) if word.startswith("@") else {word}
    return names


def numbers() -> dict[str, int]:
    """Return the numbers of the system calls of this machine."""
    text = next(Path(path).read_text() for path in HEADERS if Path(path).exists())
    return {name: int(n) for name, n in re.findall(r"^#define __NR_(\w+)\s+(\d+)", text, re.MULTILINE)}


def confine(names: set[str]) -> None:
    """Answer these system calls of this process and its children with EPERM from now on."""
    known = numbers()
    wanted = sorted(known[name] for name in names if name in known)
    steps = [_Instruction(_LOAD, 0, 0, 0)]
    steps += [_Instruction(_JUMP_EQUAL, len(wanted) - n, 0, number) for n, number in enumerate(wanted)]
    steps += [_Instruction(_RETURN, 0, 0, _ALLOW), _Instruction(_RETURN, 0, 0, _REFUSE_EPERM)]
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "cannot install the filter")


if __name__ == "__main__":
    confine(refused(Path(sys.argv[1]).read_text()))
    os.execv(sys.argv[2], sys.argv[2:])
