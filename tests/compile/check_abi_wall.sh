#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# check_abi_wall.sh <nm> <objdump> <object> <object>
# Fails and names them when two objects of other flags have a function of Pare under one name, for
# the linker to merge, but with other instructions.
set -euo pipefail

nm=$1
objdump=$2
first=$3
second=$4

# A line for each merged function: its name, and its instructions without addresses.
merged_functions() {
  "$objdump" -dr --no-show-raw-insn "$1" | awk '
    NR == FNR { if ($2 ~ /^[Ww]$/ && $3 ~ /4pare/) wanted[$3] = 1; next }
    /^[0-9a-f]+ <.*>:$/ { if (name in wanted) print name, body
                          name = substr($2, 2, length($2) - 3); body = ""; next }
    { sub(/^[ \t]*[0-9a-f]+:[ \t]*/, ""); sub(/[ \t]*#.*/, "")
      gsub(/[0-9a-f]+ <[^>]*\+?0?x?[0-9a-f]*>/, "T"); gsub(/\.(LC[0-9]+|rodata[^ ]*)/, "R")
      gsub(/[ \t]+/, " "); body = body ";" $0 }
    END { if (name in wanted) print name, body }' <("$nm" --defined-only "$1") - | sort
}

left=$(merged_functions "$first")
right=$(merged_functions "$second")
shared=$(comm -12 <(cut -d' ' -f1 <<<"$left" | sort -u) <(cut -d' ' -f1 <<<"$right" | sort -u))
differing=$(comm -3 <(echo "$left") <(echo "$right") | sed 's/^\t//' | cut -d' ' -f1 | sort -u |
  comm -12 - <(echo "$shared"))
if [[ -n $differing ]]; then
  echo "under one name, but not the same code:"
  c++filt <<<"$differing"
  exit 1
fi
echo "$(grep -c . <<<"$left") and $(grep -c . <<<"$right") merged functions of Pare," \
  "$(grep -c . <<<"$shared") with one name, all of them the same code"
