# SPDX-License-Identifier: Apache-2.0
# Cross-builds for AArch64 with Debian's g++-aarch64-linux-gnu; programs run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

# Nothing of the host is found by search. These are headers only, so those of the host will do.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
foreach(package IN ITEMS Eigen3 xsimd nlohmann_json)
  string(TOLOWER "${package}" folder)
  file(GLOB candidates /usr/share/${folder}/cmake /usr/share/cmake/${folder}
       /usr/lib/cmake/${folder} /usr/lib/*/cmake/${folder})
  foreach(candidate IN LISTS candidates)
    if(EXISTS "${candidate}/${package}Config.cmake" AND NOT ${package}_DIR)
      set(${package}_DIR "${candidate}" CACHE PATH "Header-only, taken from the host")
    endif()
  endforeach()
endforeach()
