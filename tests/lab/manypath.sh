#!/bin/sh
# The command line tool in the guest, where the wheel is unpacked but not installed.
exec python3 -m manypath "$@"
