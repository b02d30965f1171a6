# SPDX-License-Identifier: Apache-2.0
# The version that version.hpp states is the one of every file that must repeat it.
foreach(pair IN ITEMS "CITATION.cff|version: " "vcpkg.json|\"version-semver\": \"")
  string(REPLACE "|" ";" pair "${pair}")
  list(GET pair 0 file)
  list(GET pair 1 key)
  file(READ "${PARE_SOURCE}/${file}" text)
  if(NOT text MATCHES "\n *${key}([0-9.]+)" OR NOT CMAKE_MATCH_1 STREQUAL PARE_VERSION)
    message(FATAL_ERROR "${file} states version '${CMAKE_MATCH_1}', version.hpp ${PARE_VERSION}")
  endif()
endforeach()
