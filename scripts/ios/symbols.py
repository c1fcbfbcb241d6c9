"""Compares the functions that a static library of Mach-O objects defines with those that a C header declares:

    python3 symbols.py LIBRARY.a HEADER.h
"""

import re
import struct
import sys

MACH_O_64 = 0xFEEDFACF
LC_SYMTAB = 2
DEFINED_EXTERNAL = 0x0F  # N_SECT | N_EXT


def members(archive):
    """The objects in an archive of BSD's or GNU's form."""
    if archive[:8] != b"!<arch>\n":
        sys.exit("this is no static library")
    position = 8
    while position + 60 <= len(archive):
        header = archive[position : position + 60]
        size = int(header[48:58])
        data = archive[position + 60 : position + 60 + size]
        if header.startswith(b"#1/"):
            data = data[int(header[3:16]) :]
        yield data
        position += 60 + size + size % 2


def symbols(data):
    """Names of what an object defines for others."""
    if len(data) < 32 or struct.unpack_from("<I", data)[0] != MACH_O_64:
        return
    position = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, position)
        if command == LC_SYMTAB:
            table, count, strings, _ = struct.unpack_from("<IIII", data, position + 8)
            for index in range(count):
                name, kind = struct.unpack_from("<IB", data, table + 16 * index)
                if kind & 0x0F == DEFINED_EXTERNAL:
                    end = data.index(b"\0", strings + name)
                    yield data[strings + name : end].decode()
        position += size


def main():
    library, header = sys.argv[1:]
    with open(library, "rb") as file:
        defined = {name[1:] for member in members(file.read()) for name in symbols(member)}
    with open(header, encoding="utf-8") as file:
        declared = set(re.findall(r"\b((?:uniffi|ffi)_openelm\w+)\s*\(", file.read()))
    ours = {name for name in defined if re.match(r"(uniffi|ffi)_openelm", name)}
    missing = sorted(declared - ours)
    if missing or not declared:
        sys.exit(f"{len(missing)} of {len(declared)} functions of the header are not in the library: {missing[:5]}")
    beyond = sorted(ours - declared)
    print(f"all {len(declared)} functions of the header are in the library; {len(beyond)} more are: {beyond[:3]}")


if __name__ == "__main__":
    main()
