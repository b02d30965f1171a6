# SPDX-License-Identifier: Apache-2.0
# Gets Pare in the way that CASE names, builds the consumer project with it, and runs it.
file(MAKE_DIRECTORY "${WORK}")

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
  message("${out}")
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "failed with ${code}: ${ARGN}")
  endif()
  set(output "${out}" PARENT_SCOPE)
endfunction()

if(CASE STREQUAL "install_elsewhere")
  find_program(PKG_CONFIG NAMES pkg-config pkgconf REQUIRED)
  file(REMOVE_RECURSE "${WORK}")
  run("${CMAKE_COMMAND}" -S "${PARE_SOURCE}" -B "${WORK}/build" -G "${GENERATOR}"
      "-DCMAKE_CXX_COMPILER=${CXX}" "-DEigen3_DIR=${Eigen3_DIR}" "-Dxsimd_DIR=${xsimd_DIR}"
      -DPARE_BUILD_TESTS=OFF -DPARE_BUILD_BENCH=OFF -DPARE_BUILD_EXAMPLES=OFF
      -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DCMAKE_INSTALL_INCLUDEDIR=inc/math
      -DCMAKE_INSTALL_DATADIR=data/of/pare)
  if(output MATCHES "downloading")
    message(FATAL_ERROR "without nlohmann-json, which is optional, something was downloaded")
  endif()
  run("${CMAKE_COMMAND}" --install "${WORK}/build" --prefix "${WORK}/prefix")
  # The target finds its headers. (That they compile, the other cases show.)
  run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/consumer" -B "${WORK}/consumer_build" -G
      "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${CXX}" -DPARE_FROM=elsewhere "-DEigen3_DIR=${Eigen3_DIR}"
      "-DPARE_VERSION=${PARE_VERSION}" "-Dxsimd_DIR=${xsimd_DIR}"
      "-Dpare_DIR=${WORK}/prefix/data/of/pare/cmake/pare")
  # Moved, to see that nothing in it names the place.
  file(RENAME "${WORK}/prefix" "${WORK}/moved")
  set(ENV{PKG_CONFIG_PATH} "${WORK}/moved/data/of/pare/pkgconfig:$ENV{PKG_CONFIG_PATH}")
  run("${PKG_CONFIG}" --modversion pare)
  if(NOT output MATCHES "^${PARE_VERSION}")
    message(FATAL_ERROR "pare.pc states version ${output}, wanted ${PARE_VERSION}")
  endif()
  run("${PKG_CONFIG}" --cflags pare)
  separate_arguments(flags UNIX_COMMAND "${output}")
  run("${CXX}" -std=c++20 ${flags} "${CMAKE_CURRENT_LIST_DIR}/consumer/main.cpp" -o
      "${WORK}/consumer")
elseif(CASE STREQUAL "plain")
  # The headers and a compiler, as a Makefile would have it.
  string(REPLACE "|" ";-I" includes "-I${INCLUDES}")
  list(REMOVE_ITEM includes -I/usr/include)
  run("${CXX}" -std=c++20 ${includes} "${CMAKE_CURRENT_LIST_DIR}/consumer/main.cpp" -o
      "${WORK}/consumer")
else()
  set(options -DPARE_FROM=${CASE} "-DPARE_SOURCE=${PARE_SOURCE}" "-DPARE_VERSION=${PARE_VERSION}"
              "-DEigen3_DIR=${Eigen3_DIR}" "-Dxsimd_DIR=${xsimd_DIR}" -DCMAKE_BUILD_TYPE=
              "-Dnlohmann_json_DIR=${nlohmann_json_DIR}")
  if(CASE STREQUAL "install")
    file(REMOVE_RECURSE "${WORK}/prefix")
    run("${CMAKE_COMMAND}" --install "${PARE_BINARY}" --prefix "${WORK}/prefix")
    list(APPEND options "-DCMAKE_PREFIX_PATH=${WORK}/prefix")
  elseif(CASE STREQUAL "build_tree")
    list(APPEND options "-Dpare_DIR=${PARE_BINARY}")
  endif()
  run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/consumer" -B "${WORK}" -G "${GENERATOR}"
      "-DCMAKE_CXX_COMPILER=${CXX}" ${options})
  run("${CMAKE_COMMAND}" --build "${WORK}")
endif()

run("${WORK}/consumer")
if(NOT output MATCHES "pare ${PARE_VERSION}")
  message(FATAL_ERROR "the consumer did not print 'pare ${PARE_VERSION}'")
endif()
if(NOT CASE MATCHES "plain|elsewhere")
  run("${WORK}/dispatched_consumer")
  if(EXISTS "${WORK}/safetensors_consumer")
    run("${WORK}/safetensors_consumer")
  endif()
endif()
