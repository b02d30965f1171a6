# SPDX-License-Identifier: Apache-2.0
# The package: pare::pare for find_package, from the build tree and, with PARE_INSTALL, installed;
# pare.pc for pkg-config, installed.
include_guard(GLOBAL)
include(CMakePackageConfigHelpers)

# Header-only, so under share/: one installed tree serves every architecture.
set(pare_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/pare")
set(pare_modules PareArchs.cmake PareXsimd.cmake pare_add_dispatch.cmake)

configure_package_config_file(cmake/pareConfig.cmake.in pareConfig.cmake
                              INSTALL_DESTINATION "${pare_package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(pareConfigVersion.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)

if(PROJECT_IS_TOP_LEVEL)
  foreach(module IN LISTS pare_modules)
    configure_file("cmake/${module}" "${PROJECT_BINARY_DIR}/${module}" COPYONLY)
  endforeach()
  export(TARGETS pare pare_kernel NAMESPACE pare:: FILE pareTargets.cmake)
endif()

if(PARE_INSTALL)
  install(TARGETS pare pare_kernel EXPORT pareTargets)
  install(EXPORT pareTargets NAMESPACE pare:: DESTINATION "${pare_package_dir}")
  list(TRANSFORM pare_modules PREPEND "${PROJECT_SOURCE_DIR}/cmake/")
  install(FILES "${PROJECT_BINARY_DIR}/pareConfig.cmake"
                "${PROJECT_BINARY_DIR}/pareConfigVersion.cmake" ${pare_modules}
          DESTINATION "${pare_package_dir}")
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/pare" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
          FILES_MATCHING PATTERN "*.hpp" PATTERN "*.inc")
  # From where pare.pc lies, so that the installed tree may be moved.
  set(pare_pc_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")
  cmake_path(IS_ABSOLUTE pare_pc_dir pare_pc_absolute)
  set(pare_pc_prefix "${CMAKE_INSTALL_PREFIX}")
  if(NOT pare_pc_absolute)
    file(RELATIVE_PATH pare_pc_up "/prefix/${pare_pc_dir}" /prefix)
    string(REGEX REPLACE "/$" "" pare_pc_up "${pare_pc_up}")
    set(pare_pc_prefix "\${pcfiledir}/${pare_pc_up}")
  endif()
  set(pare_pc_include "${CMAKE_INSTALL_INCLUDEDIR}")
  cmake_path(IS_ABSOLUTE pare_pc_include pare_pc_absolute)
  if(NOT pare_pc_absolute)
    string(PREPEND pare_pc_include "\${prefix}/")
  endif()
  configure_file(cmake/pare.pc.in pare.pc @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/pare.pc" DESTINATION "${pare_pc_dir}")
  install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/pare")
endif()
