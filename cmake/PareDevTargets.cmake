# SPDX-License-Identifier: Apache-2.0
# What Pare's own tests, benchmarks and examples are compiled with; never part of pare::pare.
include_guard(GLOBAL)

# What was compiled once is not compiled again, in another checkout neither: paths below the
# source directory are relative in the key. Precompiled headers want the two sloppinesses,
# and g++ -fpch-preprocess.
find_program(PARE_CCACHE ccache)
mark_as_advanced(PARE_CCACHE)
if(PARE_CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND}" -E env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      "${PARE_CCACHE}")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)
  endif()
endif()

add_library(pare_dev_warnings INTERFACE)
target_compile_options(
  pare_dev_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                              $<$<BOOL:${PARE_WERROR}>:-Werror>)
# g++ 12 takes the undefined operands of its own AVX-512 intrinsics for uninitialised variables.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(pare_dev_warnings INTERFACE -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

# For programs that are run where they are built: benchmarks, and examples that show speed.
include(CheckCXXCompilerFlag)
add_library(pare_native INTERFACE)
if(PARE_NATIVE AND NOT CMAKE_CROSSCOMPILING)
  check_cxx_compiler_flag(-march=native PARE_COMPILER_HAS_march_native)
  if(PARE_COMPILER_HAS_march_native)
    target_compile_options(pare_native INTERFACE -march=native)
  endif()
endif()

# Pages of the public headers, in docs/html of the build; a warning of Doxygen's fails the target.
find_program(PARE_DOXYGEN doxygen)
mark_as_advanced(PARE_DOXYGEN)
if(PARE_DOXYGEN)
  configure_file("${CMAKE_CURRENT_LIST_DIR}/Doxyfile.in" "${CMAKE_CURRENT_BINARY_DIR}/Doxyfile" @ONLY)
  add_custom_target(pare_docs COMMAND "${PARE_DOXYGEN}" "${CMAKE_CURRENT_BINARY_DIR}/Doxyfile" VERBATIM)
endif()
