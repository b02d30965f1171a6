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

if(CASE STREQUAL "plain")
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
if(NOT CASE STREQUAL "plain")
  run("${WORK}/dispatched_consumer")
  if(nlohmann_json_DIR)
    run("${WORK}/safetensors_consumer")
  endif()
endif()
