# SPDX-License-Identifier: Apache-2.0
# What Pare stands on. An installed package comes first and is looked up without a version, because
# the version files of Eigen 5 and of xsimd reject a request that names an older major version or a
# range; the minimum is checked afterwards. With PARE_FETCH a missing one is downloaded, pinned.
include_guard(GLOBAL)
include(FetchContent)
include("${CMAKE_CURRENT_LIST_DIR}/PareXsimd.cmake")

set(PARE_EIGEN_MINIMUM 3.4.0)
set(PARE_XSIMD_MINIMUM 8.1.0)
set(PARE_JSON_MINIMUM 3.11.2)

# pare_fetch_headers(<name> <target> <include subfolder> URL ... URL_HASH ...)
# Downloads without running the package's own build, and makes an imported header-only target of it.
function(pare_fetch_headers name target include_subfolder)
  message(STATUS "pare: ${name} is not installed, downloading it")
  FetchContent_Declare(${name} ${ARGN} SOURCE_SUBDIR no-build-of-its-own)
  FetchContent_MakeAvailable(${name})
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} SYSTEM
                             INTERFACE "${${name}_SOURCE_DIR}${include_subfolder}")
endfunction()

function(pare_require_version name found minimum)
  if(found AND found VERSION_LESS minimum)
    message(FATAL_ERROR "pare: ${name} ${found} is too old, ${minimum} or newer is needed")
  endif()
endfunction()

macro(pare_find_eigen)
  if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 CONFIG QUIET)
  endif()
  if(TARGET Eigen3::Eigen)
    pare_require_version(Eigen "${Eigen3_VERSION}" ${PARE_EIGEN_MINIMUM})
  elseif(PARE_FETCH)
    pare_fetch_headers(
      eigen Eigen3::Eigen ""
      URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
      URL_HASH SHA256=8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72)
  else()
    message(FATAL_ERROR "pare: Eigen ${PARE_EIGEN_MINIMUM} or newer was not found: install it "
                        "(Debian, Ubuntu: libeigen3-dev), set Eigen3_DIR, or set PARE_FETCH=ON")
  endif()
endmacro()

macro(pare_find_xsimd)
  if(NOT TARGET xsimd AND NOT TARGET xsimd::xsimd)
    find_package(xsimd CONFIG QUIET)
  endif()
  if(TARGET xsimd OR TARGET xsimd::xsimd)
    pare_require_version(xsimd "${xsimd_VERSION}" ${PARE_XSIMD_MINIMUM})
    pare_wrap_xsimd()
  elseif(PARE_FETCH)
    pare_fetch_headers(
      xsimd pare::xsimd "/include"
      URL https://github.com/xtensor-stack/xsimd/archive/refs/tags/8.1.0.tar.gz
      URL_HASH SHA256=d52551360d37709675237d2a0418e28f70995b5b7cdad7c674626bcfbbf48328)
  else()
    message(FATAL_ERROR "pare: xsimd ${PARE_XSIMD_MINIMUM} or newer was not found: install it "
                        "(Debian, Ubuntu: libxsimd-dev), set xsimd_DIR, or set PARE_FETCH=ON")
  endif()
endmacro()

# nlohmann-json, for <pare/io/safetensors.hpp> alone. Sets pare_has_json. Only PARE_SAFETENSORS=ON
# asks for it: then it is downloaded if need be and may be, and its absence is an error.
macro(pare_find_json)
  set(pare_has_json OFF)
  if(NOT PARE_SAFETENSORS MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "pare: PARE_SAFETENSORS is '${PARE_SAFETENSORS}', wanted AUTO, ON or OFF")
  endif()
  if(PARE_SAFETENSORS AND NOT TARGET nlohmann_json::nlohmann_json)
    find_package(nlohmann_json CONFIG QUIET GLOBAL)
  endif()
  if(NOT PARE_SAFETENSORS)
    message(STATUS "pare: there will be no pare::safetensors, PARE_SAFETENSORS is OFF")
  elseif(TARGET nlohmann_json::nlohmann_json)
    if(nlohmann_json_VERSION AND nlohmann_json_VERSION VERSION_LESS PARE_JSON_MINIMUM)
      if(PARE_SAFETENSORS STREQUAL "ON")
        pare_require_version(nlohmann-json "${nlohmann_json_VERSION}" ${PARE_JSON_MINIMUM})
      endif()
      message(STATUS "pare: nlohmann-json ${nlohmann_json_VERSION} is older than "
                     "${PARE_JSON_MINIMUM}, there will be no pare::safetensors")
    else()
      set(pare_has_json ON)
    endif()
  elseif(PARE_SAFETENSORS STREQUAL "AUTO")
    message(STATUS "pare: nlohmann-json is not installed, there will be no pare::safetensors "
                   "(Debian, Ubuntu: nlohmann-json3-dev, or PARE_SAFETENSORS=ON)")
  elseif(PARE_FETCH)
    set(pare_has_json ON)
    pare_fetch_headers(
      nlohmann_json nlohmann_json::nlohmann_json "/include"
      URL https://github.com/nlohmann/json/releases/download/v3.11.2/json.tar.xz
      URL_HASH SHA256=8c4b26bf4b422252e13f332bc5e388ec0ab5c3443d24399acb675e68278d341f)
  else()
    message(FATAL_ERROR "pare: nlohmann-json ${PARE_JSON_MINIMUM} or newer was not found: install it "
                        "(Debian, Ubuntu: nlohmann-json3-dev), or set PARE_FETCH=ON or "
                        "PARE_SAFETENSORS=OFF")
  endif()
endmacro()

# GoogleTest as a package, or built from Debian's sources (which is what a cross build needs).
macro(pare_find_gtest)
  if(NOT CMAKE_CROSSCOMPILING)
    find_package(GTest CONFIG QUIET)
  endif()
  if(NOT TARGET GTest::gtest)
    set(INSTALL_GTEST OFF)
    set(BUILD_GMOCK OFF)
    if(EXISTS /usr/src/googletest/CMakeLists.txt)
      add_subdirectory(/usr/src/googletest "${PROJECT_BINARY_DIR}/googletest" EXCLUDE_FROM_ALL)
    elseif(PARE_FETCH)
      FetchContent_Declare(
        googletest URL https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz
        URL_HASH SHA256=81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2)
      FetchContent_MakeAvailable(googletest)
    else()
      message(FATAL_ERROR "pare: GoogleTest was not found: install it (Debian, Ubuntu: "
                          "libgtest-dev), or set PARE_FETCH=ON or PARE_BUILD_TESTS=OFF")
    endif()
  endif()
endmacro()

macro(pare_find_benchmark)
  find_package(benchmark CONFIG QUIET)
  if(NOT TARGET benchmark::benchmark)
    if(PARE_FETCH)
      set(BENCHMARK_ENABLE_TESTING OFF)
      set(BENCHMARK_ENABLE_INSTALL OFF)
      FetchContent_Declare(
        benchmark URL https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz
        URL_HASH SHA256=6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7)
      FetchContent_MakeAvailable(benchmark)
    else()
      message(FATAL_ERROR "pare: Google Benchmark was not found: install it (Debian, Ubuntu: "
                          "libbenchmark-dev), or set PARE_FETCH=ON or PARE_BUILD_BENCH=OFF")
    endif()
  endif()
endmacro()
