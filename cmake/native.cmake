# The native CPU module. Whatever it needs and does not find ends this file, never the install.
function(opennmt_sd_no_native reason)
  message(STATUS "opennmt_sd: no native module (${reason})")
endfunction()

if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  opennmt_sd_no_native("it is for x86-64, this is ${CMAKE_SYSTEM_PROCESSOR}")
  return()
endif()

include(CheckLanguage)
check_language(CXX) # compiles and links a program, in a project of its own
if(NOT CMAKE_CXX_COMPILER)
  opennmt_sd_no_native("no working C++ compiler")
  return()
endif()
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)

find_package(Python 3.10 QUIET COMPONENTS Interpreter Development.Module)
if(NOT TARGET Python::Module)
  opennmt_sd_no_native("no Python headers")
  return()
endif()

execute_process(
  COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
  OUTPUT_VARIABLE nanobind_ROOT
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_package(nanobind QUIET CONFIG)
if(NOT nanobind_FOUND)
  opennmt_sd_no_native("no nanobind")
  return()
endif()

# Python's headers may be there in part, the compiler too old: a small module tells.
include(CheckCXXSourceCompiles)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_REQUIRED_INCLUDES ${Python_INCLUDE_DIRS} "${NB_DIR}/include")
check_cxx_source_compiles(
  "#include <nanobind/nanobind.h>
   NB_MODULE(probe, m) { m.def(\"one\", []() { return 1; }); }"
  OPENNMT_SD_CAN_BUILD)
unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
if(NOT OPENNMT_SD_CAN_BUILD)
  opennmt_sd_no_native("a small nanobind module does not compile")
  return()
endif()

nanobind_add_module(_native NB_STATIC opennmt_sd/ops/cpu/native.cpp)
target_compile_definitions(
  _native PRIVATE "OPENNMT_SD_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")
install(TARGETS _native LIBRARY DESTINATION opennmt_sd/ops/cpu)
