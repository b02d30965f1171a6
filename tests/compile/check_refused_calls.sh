#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# check_refused_calls.sh <file> <compiler> [flags]: one run of the compiler. The first error of each
# line of the file that ends in `// refused: <regular expression>` must match it; no other line may
# have an error.
set -euo pipefail
file=$1
shift
limit=()
[[ $("$1" --version) == *clang* ]] && limit=(-ferror-limit=0)
output=$("$@" "${limit[@]}" -fsyntax-only "$file" 2>&1 || true)

failed=0
lines=0
declare -A expected first
while IFS=: read -r number line; do
  expected[$number]=${line##*// refused: }
  lines=$((lines + 1))
done < <(grep -n '// refused: ' "$file")
while IFS= read -r message; do
  number=${message#"$file":}
  number=${number%%:*}
  if [[ $message != "$file":* || -z ${expected[$number]:-} ]]; then
    echo "an error that no line asked for: $message"
    failed=1
  elif [[ -z ${first[$number]:-} ]]; then
    first[$number]=$message
  fi
done < <(grep -E '(^|: )(fatal )?error: ' <<<"$output")
for number in "${!expected[@]}"; do
  if ! grep -Eq "error: .*(${expected[$number]})" <<<"${first[$number]:-}"; then
    echo "$file:$number: wanted '${expected[$number]}' in its first error, got '${first[$number]:-nothing}'"
    failed=1
  fi
done
((lines > 0)) || { echo "$file holds no refused call"; exit 1; }
((failed)) || echo "$lines wrong calls are refused with their reason"
exit "$failed"
