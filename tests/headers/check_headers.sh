#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# check_headers.sh alone|one|no_exceptions|fast_math|old_standard <compiler> <include:include:...> <header>...
# Compiles headers and leaves nothing behind; `alone` runs `one` for each, several at a time. The
# environment variable BASELINE names the instruction set that pare_add_dispatch would have built.
set -euo pipefail

check=$1
compiler=$2
IFS=: read -r -a directories <<<"$3"
headers=("${@:4}")

flags=(-std=c++20 -fsyntax-only -x c++ -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
  "-DPARE_DISPATCH_HAS_${BASELINE:-SSE2}=1")
root=
for directory in "${directories[@]}"; do
  [[ -z $root && -e $directory/pare/pare.hpp ]] && root=$directory
  case $directory in
    /usr/include) ;;  # searched anyway, and naming it would change the order
    */include) flags+=("-I$directory") ;;
    *) flags+=(-isystem "$directory") ;;
  esac
done

# The header that another begins with, if nothing but comments and macros_off.hpp stands before it.
begins_with() {
  awk '/^ *$|^ *\/\/|^#pragma once|macros_off\.hpp>/ { next }
       /^#include <pare\// { gsub(/^#include <|>.*$/, ""); print }
       { exit }' "$1"
}

compile() { "$compiler" "${flags[@]}" "$@" -; }

# What takes the compiler most of its time in a header is what it includes. Of these, the largest
# first, one is precompiled before each header that includes it anyway: that hides nothing that the
# header itself forgets.
bases=(pare/linalg/multiply.hpp pare/core/refused_call.hpp pare/core/tensor_view.hpp
  pare/kernel/simd.hpp)

# A line for each header of the standard input: it, and the first base that its includes reach.
with_bases() {
  awk -v list="${bases[*]}" -v root="$root/" '
    function reaches(header, base,   i, n, found) {
      if (header == base) return 1
      if ((header, base) in known) return known[header, base]
      known[header, base] = 0
      n = includes[header]
      for (i = 1; i <= n && !found; i++) found = reaches(include[header, i], base)
      return known[header, base] = found + 0
    }
    FILENAME != "-" {
      if (/^#include <pare\//) {
        gsub(/^#include <|>.*$/, "")
        include[substr(FILENAME, length(root) + 1), ++includes[substr(FILENAME, length(root) + 1)]] = $0
      }
      next
    }
    {
      count = split(list, base, " ")
      chosen = ""
      for (k = 1; k <= count && chosen == ""; k++)
        if ($0 != base[k] && reaches($0, base[k])) chosen = base[k]
      print chosen == "" ? $0 : $0 " " chosen
    }' $(find "$root/pare" -name '*.hpp') -
}

case $check in
  alone)
    # Compiling a header compiles the one that it begins with as if alone, and so on: that one needs
    # no compilation of its own. But not where a base stands before it that it does not include, nor
    # where it is a kernel header and the other is none, which may reach Eigen.
    declare -A base_of=() seen=()
    while read -r header base; do
      base_of[$header]=$base
    done < <(printf '%s\n' "${headers[@]}" | with_bases)
    for header in "${headers[@]}"; do
      inner=$header
      while inner=$(begins_with "$root/$inner") && [[ -n $inner ]]; do
        [[ $inner == pare/kernel/* && $header != pare/kernel/* ]] && break
        [[ $inner == "${base_of[$header]}" || ${base_of[$inner]:-} == "${base_of[$header]}" ]] || break
        seen[$inner]=1
      done
    done
    PRECOMPILED=$(mktemp -d)
    export PRECOMPILED
    trap 'rm -rf "$PRECOMPILED"' EXIT
    for base in "${bases[@]}"; do
      file=$PRECOMPILED/${base//\//_}
      echo "#include <$base>" >"$file"
      "$compiler" "${flags[@]/-fsyntax-only/-c}" -x c++-header "$file" -o "$file.gch"
    done
    for header in "${headers[@]}"; do
      [[ -n ${seen[$header]:-} ]] || printf '%s\n' "$header${base_of[$header]:+ ${base_of[$header]}}"
    done |
      xargs -P "$(getconf _NPROCESSORS_ONLN)" -L1 "$0" one "$compiler" "$3"
    echo "${#headers[@]} headers stand alone with $compiler"
    ;;
  one)
    rule=''
    if [[ ${headers[0]} == pare/kernel/* ]]; then
      rule=$'#ifdef EIGEN_WORLD_VERSION\n#error a kernel header reaches Eigen\n#endif'
    fi
    base=()
    [[ -n ${headers[1]:-} ]] && base=(-include "$PRECOMPILED/${headers[1]//\//_}")
    if ! printf '#include <%s>\n%s\n' "${headers[0]}" "$rule" | compile "${base[@]}"; then
      echo "${headers[0]} does not stand alone with $compiler"
      exit 1
    fi
    ;;
  no_exceptions)
    printf '#include <%s>\n' "${headers[@]}" | compile -fno-exceptions
    ;;
  fast_math)
    header='#include <pare/pare.hpp>'
    # The first error ends it: what Pare says comes before everything else.
    if message=$(compile -ffast-math -Wfatal-errors <<<"$header" 2>&1); then
      echo "pare.hpp compiled under -ffast-math"
      exit 1
    fi
    if ! grep -q PARE_ALLOW_FINITE_MATH <<<"$message"; then
      echo "the error under -ffast-math does not name PARE_ALLOW_FINITE_MATH: $message"
      exit 1
    fi
    compile -ffast-math -DPARE_ALLOW_FINITE_MATH <<<"$header"
    ;;
  old_standard)
    # One error that says so, and the stop that keeps it the only one to read.
    if message=$(compile -std=c++17 <<<'#include <pare/pare.hpp>' 2>&1); then
      echo "pare.hpp compiled as C++17"
      exit 1
    fi
    errors=$(grep -E '(^|: )(fatal )?error: ' <<<"$message")
    if [[ $(wc -l <<<"$errors") != 2 || $(head -n 1 <<<"$errors") != *"pare needs C++20"* ]]; then
      echo "as C++17 pare.hpp does not stop at one error that asks for C++20: $message"
      exit 1
    fi
    ;;
  *)
    echo "unknown check $check" >&2
    exit 2
    ;;
esac
