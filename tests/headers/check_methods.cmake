# SPDX-License-Identifier: Apache-2.0
# cmake -DPARE_SOURCE=<root of the repository> -P check_methods.cmake
# Every public header has one row in METHODS.md, and every file that METHODS.md names is there. A
# row has the header, in backticks below include/pare, as a cell of its own. Whatever else stands in
# backticks and has a slash or ends like a source file is a path, of a header or from the root, as
# is the target of a link.
file(READ "${PARE_SOURCE}/METHODS.md" text)
set(bad "")

file(GLOB_RECURSE headers RELATIVE "${PARE_SOURCE}/include/pare" "${PARE_SOURCE}/include/pare/*.hpp")
list(FILTER headers EXCLUDE REGEX "/detail/")
foreach(header IN LISTS headers)
  string(FIND "${text}" "| `${header}` |" first)
  string(FIND "${text}" "| `${header}` |" last REVERSE)
  if(first EQUAL -1)
    string(APPEND bad "\n  ${header}: a public header without a row")
  elseif(NOT first EQUAL last)
    string(APPEND bad "\n  ${header}: a public header with more than one row")
  endif()
endforeach()

# No character of these has a meaning in CMake's lists.
string(REGEX MATCHALL "`[A-Za-z0-9_+./-]+`" quoted "${text}")
string(REGEX MATCHALL "\\]\\([A-Za-z0-9_+./-]+\\)" links "${text}")
list(TRANSFORM quoted REPLACE "`" "")
list(FILTER quoted INCLUDE REGEX "/|\\.(hpp|inc|cpp|cmake|py|sh)$")
list(TRANSFORM links REPLACE "[]()]" "")
list(REMOVE_DUPLICATES quoted)
list(REMOVE_DUPLICATES links)
foreach(path IN LISTS quoted)
  if(NOT EXISTS "${PARE_SOURCE}/include/pare/${path}" AND NOT EXISTS "${PARE_SOURCE}/${path}")
    string(APPEND bad "\n  ${path}: neither a header below include/pare nor a path from the root")
  endif()
endforeach()
foreach(path IN LISTS links)
  if(NOT EXISTS "${PARE_SOURCE}/${path}")
    string(APPEND bad "\n  ${path}: a link that leads nowhere")
  endif()
endforeach()

if(bad)
  message(FATAL_ERROR "METHODS.md and the repository differ:${bad}")
endif()
list(LENGTH headers count)
list(LENGTH quoted paths)
list(LENGTH links targets)
if(count EQUAL 0 OR paths EQUAL 0 OR targets EQUAL 0)
  message(FATAL_ERROR "nothing was looked at: ${count} headers, ${paths} paths, ${targets} links")
endif()
message("${count} public headers have a row in METHODS.md; ${paths} paths and ${targets} links lead "
        "somewhere")
