#!/bin/sh
# no_shared_code_test.sh NM NAMESPACE OBJECT: fails if the object file, compiled for one instruction
# set, defines a function that the linker may also use elsewhere. It would run on older processors.
set -eu
shared=$("$1" -C --defined-only "$3" | grep -E ' [WVuiTDB] ' | grep -v " $2::" || true)
if [ -n "$shared" ]; then
  echo "$3 defines outside $2:"
  echo "$shared"
  exit 1
fi
