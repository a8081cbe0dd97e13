# The native CPU module. Whatever it needs and does not find ends this file, never the install.
function(opennmt_sd_no_native reason)
  message(STATUS "opennmt_sd: no native module (${reason})")
endfunction()

option(OPENNMT_SD_NATIVE "Build the native module, where that is possible" ON)
if(NOT OPENNMT_SD_NATIVE)
  opennmt_sd_no_native("it was not asked for")
  return()
endif()

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
set(CMAKE_REQUIRED_FLAGS "-march=x86-64-v4") # GCC 11, Clang 12
check_cxx_source_compiles(
  "#include <immintrin.h>
   #include <nanobind/nanobind.h>
   NB_MODULE(probe, m) { m.def(\"one\", []() { return 1; }); }"
  OPENNMT_SD_CAN_BUILD)
unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
unset(CMAKE_REQUIRED_FLAGS)
if(NOT OPENNMT_SD_CAN_BUILD)
  opennmt_sd_no_native("a small nanobind module does not compile")
  return()
endif()

# Warnings are for those who change the code: a build from source never stops at one, unless asked to.
option(OPENNMT_SD_WERROR "Stop at a warning" OFF)
set(warnings -Wall -Wextra)
if(OPENNMT_SD_WERROR)
  list(APPEND warnings -Werror)
endif()

set(native opennmt_sd/ops/cpu/native)
nanobind_add_module(
  _native NB_STATIC
  ${native}/attention.cpp ${native}/dropout.cpp ${native}/linear.cpp ${native}/memory.cpp
  ${native}/module.cpp ${native}/nll.cpp ${native}/operands.cpp ${native}/recurrent.cpp
  ${native}/stepwise.cpp)
target_compile_options(_native PRIVATE ${warnings})
target_compile_definitions(
  _native PRIVATE "OPENNMT_SD_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")

# One source of kernels, once for each instruction set; module.cpp picks one at run time. What is in
# the files -inl.h is compiled here and nowhere else.
# Without OpenMP they run one thread. torch brings the OpenMP runtime of GCC, and shares it.
find_package(OpenMP QUIET COMPONENTS CXX)
if(NOT OpenMP_CXX_FOUND)
  list(APPEND warnings -Wno-unknown-pragmas)
endif()
function(opennmt_sd_kernels name source table) # and the flags of an instruction set
  add_library(${name} OBJECT ${native}/${source})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(${name} PRIVATE ${table})
  # contract: a * b + c is one instruction. uninitialized: false alarms in GCC 12's own headers.
  target_compile_options(${name} PRIVATE -O3 ${ARGN} -ffp-contract=fast ${warnings}
                                         -Wno-uninitialized)
  if(OpenMP_CXX_FOUND)
    target_link_libraries(${name} PRIVATE OpenMP::OpenMP_CXX)
  endif()
  target_sources(_native PRIVATE $<TARGET_OBJECTS:${name}>)
endfunction()
foreach(isa_and_level "avx512;x86-64-v4" "avx2;x86-64-v3" "baseline;x86-64")
  list(GET isa_and_level 0 isa)
  list(GET isa_and_level 1 level)
  opennmt_sd_kernels(_kernels_${isa} kernels.cpp SD_ISA=isa_${isa} -march=${level})
  opennmt_sd_kernels(_bfloat16_${isa} bfloat16.cpp SD_TABLE=bfloat16_${isa} -march=${level})
endforeach()

# Products in bfloat16 by one instruction, where the compiler knows it: GCC 10, Clang 9.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_REQUIRED_FLAGS "-march=x86-64-v4 -mavx512bf16")
check_cxx_source_compiles(
  "#include <immintrin.h>
   __m512 f(__m512 a, __m512i b) { return _mm512_dpbf16_ps(a, (__m512bh)b, (__m512bh)b); }
   bool g() { return __builtin_cpu_supports(\"avx512bf16\"); }"
  OPENNMT_SD_AVX512_BF16)
unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
unset(CMAKE_REQUIRED_FLAGS)
if(OPENNMT_SD_AVX512_BF16)
  opennmt_sd_kernels(_bfloat16_avx512_bf16 bfloat16.cpp SD_TABLE=bfloat16_avx512_bf16
                     -march=x86-64-v4 -mavx512bf16)
  target_compile_definitions(_native PRIVATE OPENNMT_SD_AVX512_BF16)
endif()
if(OpenMP_CXX_FOUND)
  target_link_libraries(_native PRIVATE OpenMP::OpenMP_CXX)
endif()
install(TARGETS _native LIBRARY DESTINATION opennmt_sd/ops/cpu)
