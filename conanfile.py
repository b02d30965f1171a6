# SPDX-License-Identifier: Apache-2.0
import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import load


class PareConan(ConanFile):
    name = "pare"
    license = "Apache-2.0"
    topics = ("machine-learning", "simd", "eigen", "header-only")
    description = "Header-only C++20 kernels that make models cheaper"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"safetensors": [True, False]}
    default_options = {"safetensors": False}
    generators = "CMakeDeps"
    exports_sources = "CMakeLists.txt", "LICENSE", "cmake/*", "include/*"
    no_copy_source = True

    def set_version(self):
        header = load(self, os.path.join(self.recipe_folder, "include/pare/core/version.hpp"))
        self.version = ".".join(
            re.search(rf"#define PARE_VERSION_{part} (\d+)", header).group(1)
            for part in ("MAJOR", "MINOR", "PATCH")
        )

    def requirements(self):
        self.requires("eigen/[>=3.4.0 <6]", transitive_headers=True)
        self.requires("xsimd/[>=8.1.0]", transitive_headers=True)
        if self.options.safetensors:
            self.requires("nlohmann_json/[>=3.11.2]", transitive_headers=True)

    def package_id(self):
        self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCH", "EXAMPLES"):
            toolchain.cache_variables[f"PARE_BUILD_{part}"] = False
        # Conan brings what is required; CMake must look for nothing else.
        toolchain.cache_variables["PARE_FETCH"] = False
        toolchain.cache_variables["PARE_SAFETENSORS"] = "ON" if self.options.safetensors else "OFF"
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs.append("share/cmake/pare")
